"""The other families of multimodal models, for comparison."""
