"""How fast the package is, measured so that the figures can be compared with each other."""
