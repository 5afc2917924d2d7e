"""A page that shows live what the node does."""
