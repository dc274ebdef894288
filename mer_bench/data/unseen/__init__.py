"""Dialogues that no store holds, and the way to the features that a store's own dialogues have."""
