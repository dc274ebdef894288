"""The most frequent class of the train split, whatever is said: the floor of every table."""
