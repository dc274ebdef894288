"""Text only: a small transformer encoder over the utterances of a dialogue."""
