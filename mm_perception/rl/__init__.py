"""Policies on the joint latent: environments, failing sensors, observations, trained policies."""
