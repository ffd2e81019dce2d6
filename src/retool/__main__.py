"""`python -m retool` is `retool`."""

from retool.cli import main

main()
