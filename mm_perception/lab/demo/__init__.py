"""The demonstration: sensors fail one after the other, the model fills them in, and it counts."""
