"""Measures of what a model generates."""
