"""Epochs of several seeds, each one pass, until the last seed has ended; each is chosen by its own dev scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mer_bench.api import Split
from mer_bench.errors import DivergedError
from mer_bench.nn.seeds import RandomNumbers
from mer_bench.records import Epoch
from mer_bench.seeding import derived_seed, seed_everything
from mer_bench.stacking.network import StackedNetwork, give_own_storage
from mer_bench.trainer import (
    Criterion,
    MemoryWatch,
    ScoreDev,
    Sums,
    Trained,
    TrainedEpoch,
    Trainer,
    check_labelled,
)


@dataclass(eq=False)
class Member:
    """One seed of a stack.

    Attributes:
        trainer: Its weights, optimiser, curve and choice: all but the pass over train.
        numbers: What its dropout and its model draw.
        failure: Why it ended without a result; the others go on.
    """

    trainer: Trainer
    numbers: RandomNumbers
    failure: DivergedError | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is still trained."""
        return self.failure is None and self.trainer.ended() is None

    def parts(self) -> dict[str, Any]:
        """What `TrainingState.parts` gives where the seed is trained alone, with its own random numbers."""
        with self.numbers.as_global():
            return self.trainer.state.parts()


class StackTrainer:
    """Trains the models of several trainers together; they share settings and the order of batches.

    Args:
        trainers: One a seed, all fresh.
        device: Where the splits are.
        saved: What `states` gave, to go on from there.
    """

    def __init__(
        self, trainers: Sequence[Trainer], device: torch.device, saved: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self.members = []
        for place, trainer in enumerate(trainers):
            failure = None
            if saved is None:
                seed_everything(derived_seed(trainer.seed, "dropout"))
            else:
                trainer.state.load_state_dict(saved[place]["training"])
                reason = saved[place]["failure"]
                failure = None if reason is None else DivergedError(reason)
            self.members.append(Member(trainer, RandomNumbers(device), failure))

    @property
    def epoch(self) -> int:
        """Epochs that were trained."""
        return max(member.trainer.state.epoch for member in self.members)

    def states(self) -> list[dict[str, Any]]:
        """All that training changes, to be written at once."""
        return [
            {"training": member.parts(), "failure": None if member.failure is None else str(member.failure)}
            for member in self.members
        ]

    def fit(
        self,
        train: Split,
        dev: Split,
        score_dev: ScoreDev,
        on_epoch: Callable[[Mapping[int, Epoch]], None],
    ) -> list[Trained | DivergedError]:
        """Train until every seed has ended: by its own patience, by the number of epochs, or by diverging.

        A seed that has ended is taken out of the stack, so that it costs nothing more and nothing changes it.

        Args:
            on_epoch: Called after each epoch with what it came to, by the place of the seeds that were trained.

        Returns:
            In the order of the trainers.

        Raises:
            RequestError: If no utterance of train has a label. OutOfMemoryError: If memory was exhausted.
        """
        check_labelled(train)
        first = self.members[0].trainer
        criterion = Criterion.for_split(first.settings, train, first.state.model.spec.class_count)
        network: StackedNetwork | None = None
        while running := [member for member in self.members if member.is_running]:
            models = [member.trainer.state.model for member in running]
            if network is None or network.models != models:
                network = StackedNetwork(models, [member.numbers for member in running])
            on_epoch(self._epoch(network, running, train, dev, score_dev, criterion))
        results: list[Trained | DivergedError] = []
        for member in self.members:
            ended = member.trainer.ended()
            if member.failure is not None or ended is None:
                assert member.failure is not None
                results.append(member.failure)
            else:
                results.append(member.trainer.chosen(ended, dev, score_dev))
        return results

    def _epoch(
        self,
        network: StackedNetwork,
        running: Sequence[Member],
        train: Split,
        dev: Split,
        score_dev: ScoreDev,
        criterion: Criterion,
    ) -> dict[int, Epoch]:
        started = time.perf_counter()
        trained = self._pass(network, [member.trainer for member in running], train, criterion)
        epochs: dict[int, Epoch] = {}
        for member, own in zip(running, trained, strict=True):
            try:
                with member.numbers.as_global():
                    epochs[self.members.index(member)] = member.trainer.end_epoch(own, dev, score_dev)
            except DivergedError as error:
                member.failure = error
        share = (time.perf_counter() - started) / len(running)
        for member in running:
            member.trainer.state.training_seconds += share
            if not member.is_running:
                give_own_storage(member.trainer.state.model)
        return epochs

    def _pass(
        self, network: StackedNetwork, trainers: Sequence[Trainer], train: Split, criterion: Criterion
    ) -> list[TrainedEpoch]:
        """One pass over train, in batches that the first seed's generator draws for all."""
        first = trainers[0]
        size = first.settings.batch_size
        steps = -(-train.dialogue_count // size)
        possible = steps * first.settings.epochs
        terms_seen, diagnostics_seen = Sums(), Sums()
        rate = 0.0
        for trainer in trainers:
            trainer.state.model.train()
        with MemoryWatch(first.state.model, train, size) as watch:
            for batch in watch.over(train.shuffled(size, first.state.batches)):
                progress = first.state.step / possible
                for trainer in trainers:
                    rate = trainer.begin_step(possible)
                terms, diagnostics = network.loss(batch, criterion, progress)
                terms["total"].sum().backward()
                network.hand_out_gradients()
                norms = torch.stack([trainer.take_step() for trainer in trainers])
                terms_seen.add({**terms, "gradient": norms})
                diagnostics_seen.add(diagnostics)
        for trainer in trainers[1:]:
            trainer.state.batches.set_state(first.state.batches.get_state())
        each = (
            {name: total.tolist() for name, total in seen.by_name.items()} for seen in (terms_seen, diagnostics_seen)
        )
        terms_of, diagnostics_of = each
        return [
            TrainedEpoch(
                {name: totals[place] / steps for name, totals in terms_of.items()},
                {name: totals[place] / steps for name, totals in diagnostics_of.items()},
                rate,
            )
            for place in range(len(trainers))
        ]
