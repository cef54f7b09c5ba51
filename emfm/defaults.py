"""What is taken where the user does not choose. The command line shows it without loading torch."""

DEFAULT_GENERATOR = "unet4-rf200"
DEFAULT_DENOISER = "denoiser"  # where noisy micrographs alone are learnt from
DEFAULT_FOR_STROKES = "hrnet-w18-small"  # its features cost little, at several scales
