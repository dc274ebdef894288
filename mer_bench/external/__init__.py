"""Predictions that some other system made: read, checked against the dataset, scored, and written as a record.

The system is whatever gives a label to an utterance: a language model, another toolkit, a panel of raters. Nothing here
runs it, and what its submitter states of it stands in the record as stated.
"""

from mer_bench.external.request import ScoreRequest
from mer_bench.external.scoring import score, write_template

__all__ = ["ScoreRequest", "score", "write_template"]
