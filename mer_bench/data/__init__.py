"""Dialogues, prepared feature stores, batches, and the ways data come onto this machine."""
