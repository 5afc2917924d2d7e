"""Cross-modality inference for robots: fuse whatever sensors deliver, fill in the rest."""

__version__ = '0.1.0'
