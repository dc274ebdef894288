"""Encoders of what is said: a text becomes a vector. The interface and the list of encoders are in `encoding`."""
