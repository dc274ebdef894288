"""`python -m mer_bench`: the command line."""

from mer_bench.cli import main

main()
