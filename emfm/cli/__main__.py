"""`python -m emfm.cli`, as torchrun starts it."""

from emfm.cli import main

main()
