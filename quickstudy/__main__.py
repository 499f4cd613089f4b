"""`python -m quickstudy`: the command line."""

from quickstudy.cli import main

main()
