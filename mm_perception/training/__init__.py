"""Training: each level alone, or both in one step."""
