"""One file for each family of formats; all return `Planes`, the two-dimensional images of an opened file."""
