"""How noise is told from structure where there are no clean targets."""

# "auto" measures which of the others fits.
NOISES = ("auto", "pixels", "rows", "columns", "frames")
