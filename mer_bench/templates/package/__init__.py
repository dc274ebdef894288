"""The files around a shelf of models that make it an installable package."""
