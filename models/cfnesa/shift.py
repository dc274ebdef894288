"""The emotion-shift task of CFN-ESA: do two utterances of a dialogue have the same emotion?"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import NO_LABEL
from mer_bench.nn.dropout import Dropout


class EmotionShift(nn.Module):
    """LESM: `V relu(W [x_i, x_j] + b) + c` for pairs of utterances, index 1 for an emotion that shifts.

    W is kept as two maps, one for each side of a pair, so that each utterance goes through it once.

    Shapes (N utterances, P pairs):
        first, second: (N, width). left, right: (P,), long, rows of first and of second. returns: (P, 2), logits.
    """

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.left = nn.Linear(width, inner)
        self.right = nn.Linear(width, inner, bias=False)
        self.kinds = nn.Linear(inner, 2)
        self.dropout = Dropout(dropout)

    def forward(self, first: Tensor, second: Tensor, left: Tensor, right: Tensor) -> Tensor:
        pairs = self.left(first).index_select(0, left) + self.right(second).index_select(0, right)
        logits: Tensor = self.kinds(self.dropout(pairs.relu()))
        return logits


def labelled_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All ordered pairs of labelled utterances of one dialogue, an utterance with itself too.

    Shapes:
        labels: (B, T), long, NO_LABEL where there is none.
        returns: two (P,), long, cells of the batch flattened to B T; (P,), long, 1 where the labels differ, else 0.
    """
    turns = labels.shape[1]
    counted = labels != NO_LABEL
    dialogue, first, second = (counted.unsqueeze(2) & counted.unsqueeze(1)).nonzero(as_tuple=True)
    left, right = dialogue * turns + first, dialogue * turns + second
    flat = labels.flatten()
    return left, right, (flat[left] != flat[right]).long()


def shift_loss(logits: Tensor, shifted: Tensor) -> Tensor:
    """Mean cross-entropy over the pairs; 0 where there is none.

    Shapes:
        logits: (P, 2). shifted: (P,), long. returns: scalar.
    """
    return F.cross_entropy(logits, shifted, reduction="sum") / max(len(shifted), 1)
