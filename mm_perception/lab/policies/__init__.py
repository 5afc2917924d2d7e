"""How policies on the joint latent keep their return when sensors fail: data, training, tables."""
