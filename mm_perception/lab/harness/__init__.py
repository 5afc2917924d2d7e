"""Nodes in processes of their own, and clients of their topics."""
