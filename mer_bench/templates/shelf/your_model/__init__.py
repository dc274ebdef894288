"""Your model; this file stays empty but for this line, so that reading the card runs no code."""
