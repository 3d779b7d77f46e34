"""`python -m ralph_core` is `ralph`."""

from .cli import main

main()
