"""`python -m reidkit.cli`, for torchrun and debuggers."""

from reidkit.cli import main

main()
