"""A simulated arm that reaches for a ball: the second robot that ships."""
