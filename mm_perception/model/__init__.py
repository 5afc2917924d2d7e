"""Hierarchical multimodal variational autoencoders in PyTorch."""
