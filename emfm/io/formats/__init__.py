"""One file for each family of formats; all return `Planes`, the images of an opened file."""
