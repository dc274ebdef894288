"""Multinomial logistic regression on single utterances: what words and voice tell without context."""
