"""Processes killed and files damaged at random, and whether anything came of it; `python -m tests.faults --help`."""
