"""Recordings of digits: pens, voices, datasets."""
