"""Models of our own: each folder in here that holds a card.toml is one."""
