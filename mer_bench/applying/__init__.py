"""A trained model applied to dialogues that no corpus holds.

A record says which model it was, with which settings and on which feature set; the weights lie beside it; the
feature set's store keeps what was learnt of the train split's texts and measurements. `predict` puts the three
together again, and labels what a user brings.
"""

from mer_bench.applying.answers import FORMATS, Labelled, write_labelled
from mer_bench.applying.labelling import Application, predict

__all__ = ["FORMATS", "Application", "Labelled", "predict", "write_labelled"]
