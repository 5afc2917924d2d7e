"""The parts of the node ``cmi``."""
