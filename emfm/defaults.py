"""What is taken where the user does not choose; light to import, so that the command line shows it at once."""

DEFAULT_GENERATOR = "unet4-rf200"
