"""Files to arrays and back: micrographs of every format, images, pixel sizes."""
