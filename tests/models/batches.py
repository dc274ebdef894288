"""Random dialogues in double precision, some of whose utterances lack a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from mer_bench.data.batches import Batch


def batch_with_gaps(
    widths: Mapping[str, int],
    lengths: Sequence[int],
    speakers: int,
    seed: int = 0,
    surplus: int = 0,
    share: float = 0.7,
) -> Batch:
    """A batch of which about `share` of the utterances have a modality.

    Args:
        widths: Of the features, by modality.
        lengths: Turns of each dialogue.
        speakers: Of a dialogue at most so many.
        surplus: Turns of padding after the longest dialogue.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths) + surplus) < torch.tensor(lengths).unsqueeze(1)
    present = {name: mask & (torch.rand(mask.shape, generator=generator) < share) for name in widths}
    features = {
        name: torch.randn(*mask.shape, width, generator=generator, dtype=torch.float64) * present[name].unsqueeze(-1)
        for name, width in widths.items()
    }
    return Batch(
        features=features,
        present=present,
        mask=mask,
        speakers=torch.randint(0, speakers, mask.shape, generator=generator).masked_fill(~mask, 0),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )
