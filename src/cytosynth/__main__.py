"""`python -m cytosynth`."""

from .cli import main

main()
