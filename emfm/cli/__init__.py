"""The command line: one verb a job. Wrong input answers with one line and exit code 2."""

from emfm.cli import models, training, use, data  # noqa: F401, I001  (in the order of --help)
from emfm.cli.application import app, main

__all__ = ["app", "main"]
