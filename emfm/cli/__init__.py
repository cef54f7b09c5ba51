"""The command line: one verb a job. Wrong input answers with one line and exit code 2."""

import sys

try:
    from emfm.cli import models, training, use, data, labels  # noqa: F401, I001  (in the order of --help)
    from emfm.cli.application import app, main
except KeyboardInterrupt:  # pressed before anything began
    sys.stderr.write("emfm: stopped\n")
    sys.exit(130)

__all__ = ["app", "main"]
