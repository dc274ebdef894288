"""COGMEN: a transformer over the dialogue, then a graph of speaker relations and a graph transformer."""
