"""Recordings played as live sensors that fail by a schedule."""
