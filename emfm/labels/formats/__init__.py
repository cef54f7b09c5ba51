"""How other programs keep labels, one file a format."""
