"""Who reads a dialogue's history: every person who speaks in it, with a memory of their own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Readers:
    """The persons of a batch, each a reader of one dialogue.

    Shapes (B dialogues, T turns, P readers):
        dialogue: (P,), long; which dialogue each reads.
        own: (P, T), bool; True where the reader speaks.
        lengths: (P,), long, at least 1; turns that can be history of a turn of the reader.
        reader_of: (B, T), long; who speaks, 0 on padding.
    """

    dialogue: Tensor
    own: Tensor
    lengths: Tensor
    reader_of: Tensor

    def own_turns(self, values: Tensor) -> Tensor:
        """Of each turn what its own speaker found: (P, T, width) to (B, T, width)."""
        readers, turns, width = values.shape
        rows = self.reader_of * turns + torch.arange(turns, device=values.device)  # (B, T)
        return values.reshape(readers * turns, width).index_select(0, rows.flatten()).view(*rows.shape, width)


def readers(speakers: Tensor, mask: Tensor) -> Readers:
    """One reader for each person of each dialogue.

    Shapes:
        speakers: (B, T), long. mask: (B, T), bool.
    """
    batch, turns = speakers.shape
    people = int(speakers.max()) + 1
    dialogue = torch.arange(batch, device=speakers.device)
    person = dialogue.unsqueeze(1) * people + speakers  # (B, T)
    names, reader = person[mask].unique(return_inverse=True)  # (P,), (N,)
    reader_of = torch.zeros_like(person)
    reader_of[mask] = reader
    whose = names // people  # (P,)
    own = (person[whose] == names.unsqueeze(1)) & mask[whose]  # (P, T)
    last = torch.where(own, torch.arange(turns, device=speakers.device), 0).amax(1)
    return Readers(whose, own, last.clamp_min(1), reader_of)


def one_reader(mask: Tensor, lengths: Tensor) -> Readers:
    """One reader for each dialogue, to whom every turn is their own.

    Shapes:
        mask: (B, T), bool. lengths: (B,), long.
    """
    dialogue = torch.arange(len(mask), device=mask.device)
    return Readers(dialogue, mask, lengths, dialogue.unsqueeze(1).expand(mask.shape))
