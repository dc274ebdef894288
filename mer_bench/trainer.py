"""Train a model by epochs on the train split and choose the epoch on dev; the test split is never here."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import NO_LABEL, Batch, FittedModel, LossTerm, Model, Output, Split
from mer_bench.compiling import compiled_pass
from mer_bench.config import TrainerSettings
from mer_bench.errors import DivergedError, MerBenchError, OutOfMemoryError, RequestError, is_out_of_memory
from mer_bench.metrics import METRICS
from mer_bench.records import Epoch, Scores, Selection
from mer_bench.seeding import derived_seed, seed_everything

SCORING_BATCH = 64
"""Dialogues scored at a time; has no influence on the scores."""

SCORING_PAIRS = 64 * 128**2
"""Fewer are scored at a time where they are longer than this allows, so that a dialogue that fits in training alone
fits in scoring too, whatever its length."""


@dataclass(frozen=True)
class Criterion:
    """Cross-entropy or focal loss over labelled utterances, with class weights and label smoothing.

    `l = -w_y (1 - p_y)^gamma log p_y`, averaged with the weights `w_y` (Lin et al. 2017, "Focal Loss for
    Dense Object Detection", eq. 4-5; gamma 0 is cross-entropy). With smoothing e the target is
    `1 - e` on the label plus `e / classes` on each class (Szegedy et al. 2016, section 7).

    Attributes:
        weights: (classes,), float, or None.
    """

    weights: Tensor | None = None
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the labelled utterances, 0 when there are none.

        Shapes:
            logits: (B, T, classes), float. labels: (B, T), long, NO_LABEL where not counted.
            returns: scalar.
        """
        chosen = labels != NO_LABEL
        target = labels[chosen]  # (N,)
        log_p = F.log_softmax(logits[chosen].float(), dim=-1)  # (N, classes)
        loss = -log_p.gather(1, target.unsqueeze(1)).squeeze(1)  # (N,)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * log_p.mean(dim=-1)
        if self.focal_gamma:
            p = log_p.gather(1, target.unsqueeze(1)).squeeze(1).exp()
            loss = loss * (1 - p) ** self.focal_gamma
        if self.weights is None:
            return loss.sum() / max(len(target), 1)
        weight = self.weights[target]
        return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)

    @classmethod
    def for_split(cls, settings: TrainerSettings, train: Split, classes: int) -> Criterion:
        """The criterion that the settings describe; class frequencies come from the train split.

        Raises:
            RequestError: If class weights were given and their number is not that of the classes.
        """
        weights: Tensor | None = None
        if not isinstance(settings.class_weights, str):
            if len(settings.class_weights) != classes:
                raise RequestError(
                    f"class_weights needs one number for each of the {classes} classes, "
                    f"but {len(settings.class_weights)} were given."
                )
            weights = torch.tensor(settings.class_weights, device=train.device)
        elif settings.class_weights != "none":
            assert train.labels is not None
            counts = torch.bincount(train.labels[train.labels != NO_LABEL], minlength=classes).double()
            weights = counts.clamp_min(1) ** -settings.class_weight_power
            # Mean 1 over the train utterances, so that the learning rate keeps its meaning.
            weights = (weights * counts.sum() / (weights * counts).sum()).float().to(train.device)
        return cls(weights, settings.focal_gamma, settings.label_smoothing)


def schedule_factor(term: LossTerm, progress: float) -> float:
    """Share of a loss term's weight at a progress in [0, 1] of all possible steps."""
    if term.schedule == "warmup":
        return min(1.0, 10 * progress)
    if term.schedule == "ramp":
        return min(1.0, 2 * progress)
    return 1.0


def loss_terms(output: Output, batch: Batch, criterion: Criterion, progress: float) -> dict[str, Tensor]:
    """Every term of the loss by name: `total` first, `task`, then the model's own, each unweighted.

    Auxiliary logits appear as `task_<name>`. `total` is the weighted sum that is minimised.
    """
    assert batch.labels is not None
    task = criterion(output.logits, batch.labels)
    total = task
    terms = {"task": task}
    for name, auxiliary in output.auxiliary.items():
        labels = batch.labels
        if auxiliary.mask is not None:
            labels = labels.masked_fill(~auxiliary.mask, NO_LABEL)
        terms[f"task_{name}"] = criterion(auxiliary.logits, labels)
        total = total + auxiliary.weight * terms[f"task_{name}"]
    for name, term in output.losses.items():
        terms[name] = term.value
        total = total + term.weight * schedule_factor(term, progress) * term.value
    return {"total": total, **terms}


@dataclass
class TrainingState:
    """All that training changes, in one object, so that it can be saved and taken up again.

    Attributes:
        step: Optimiser steps taken. epoch: Epochs finished.
        average: The averaged weights by parameter name, empty without averaging.
        batches: Generator that draws the batches. Dropout draws from torch's global generators, and a model may
            draw from Python's and NumPy's; their states are part of what is saved.
        best: Weights at the best epoch so far.
    """

    model: Model
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    batches: torch.Generator
    average: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    best: dict[str, Tensor] = field(default_factory=dict)
    curve: list[Epoch] = field(default_factory=list)
    training_seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything; `load_state_dict` on an equal trainer goes on from here, bit for bit."""
        return copy.deepcopy(self.parts())

    def parts(self) -> dict[str, Any]:
        """The same without a copy: to be written at once, before training changes it."""
        kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        assert isinstance(keys, np.ndarray)
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average,
            "best": self.best,
            "random": {
                "batches": self.batches.get_state(),
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
                "python": random.getstate(),
                "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
            },
            "progress": {
                "step": self.step,
                "epoch": self.epoch,
                "best_epoch": self.best_epoch,
                "best_score": self.best_score,
                "training_seconds": self.training_seconds,
                "curve": [epoch.model_dump() for epoch in self.curve],
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` returned, on whatever device its tensors are."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        self.model.load_state_dict(state["model"])
        # A copy: Adam changes its moments in place, and on the same device they would be those of `state`.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.scaler.load_state_dict(state["scaler"])
        self.average = {name: value.to(device, copy=True) for name, value in state["average"].items()}
        self.best = {name: value.to(device, copy=True) for name, value in state["best"].items()}
        drawn = state["random"]
        self.batches.set_state(drawn["batches"])
        torch.set_rng_state(drawn["cpu"])
        if drawn["cuda"]:
            torch.cuda.set_rng_state_all(drawn["cuda"])
        random.setstate(drawn["python"])
        kind, keys, *rest = drawn["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        progress = dict(state["progress"])
        self.curve = [Epoch.model_validate(epoch) for epoch in progress.pop("curve")]
        for name, number in progress.items():
            setattr(self, name, number)


@dataclass(frozen=True)
class Trained:
    """A model at its chosen epoch, and how it came there."""

    model: Model
    selection: Selection
    curve: list[Epoch]
    dev: Scores
    seconds: float


@dataclass(frozen=True)
class TrainedEpoch:
    """A pass over train: the mean of each loss term and of each diagnostic over its batches, the last learning rate."""

    terms: dict[str, float]
    diagnostics: dict[str, float]
    rate: float


class Sums:
    """Sums of named tensors over the batches of an epoch; they are not looked at, and wait for nothing, before its end.

    Attributes:
        by_name: Each detached, of the shape of what was added.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of another batch."""
        for name, each in values.items():
            self.by_name[name] = self.by_name[name] + each.detach() if name in self.by_name else each.detach()

    def means(self, count: int) -> dict[str, float]:
        """Each sum, a scalar, over the number of batches."""
        return {name: float(total) / count for name, total in self.by_name.items()}


def check_labelled(train: Split) -> None:
    """See that there is something to learn from.

    Raises:
        RequestError: If no utterance has a label.
    """
    if train.labels is None or not bool((train.labels != NO_LABEL).any()):
        raise RequestError(f"no utterance of the split {train.name} has a label; there is nothing to learn from.")


ScoreDev = Callable[[Tensor], Scores]
"""Scores of the dev split from its log-probabilities, (utterances, classes), on the CPU."""
OnEpoch = Callable[[Epoch, TrainingState], None]
OnScored = Callable[[int, Model], None]
"""Given an epoch's number and the model with the very weights that were scored on dev, the averaged ones if any."""


class Trainer:
    """Trains one model; is handed the train and the dev split and nothing else.

    Args:
        build: Makes the model; called after the seed is set.
        settings: How to train.
        metric: The dev metric that chooses the epoch, a name in `metrics.METRICS`.
        seed: Decides the weights, the dropout and, unless the settings name another for them, the batches.
        device: Where the splits are.
    """

    def __init__(
        self,
        build: Callable[[], Model],
        settings: TrainerSettings,
        metric: str,
        seed: int,
        device: torch.device,
    ) -> None:
        if settings.precision == "float16" and device.type != "cuda":
            raise RequestError(
                f"precision float16 needs a cuda device, but this run is on {device.type}; "
                "leave it at float32, or take bfloat16."
            )
        self.settings = settings
        self.metric = metric
        self.seed = seed
        self.device = device
        seed_everything(derived_seed(seed, "weights"))
        model = build().to(device)
        order = seed if settings.order_seed is None else settings.order_seed
        batches = torch.Generator().manual_seed(derived_seed(order, "batches"))
        # A fitted model has no parameters; an optimiser refuses an empty list.
        parameters = list(model.parameters()) or [nn.Parameter(torch.zeros(1, device=device))]
        optimizer_class = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        optimizer = optimizer_class(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        self.state = TrainingState(model, optimizer, scaler, batches)
        self._pass: Callable[[Batch], Output] = compiled_pass(model, device) if settings.compile else model
        if settings.average_decay:
            self.state.average = {name: p.detach().clone() for name, p in model.named_parameters()}

    def fit(
        self,
        train: Split,
        dev: Split,
        score_dev: ScoreDev,
        on_epoch: OnEpoch | None = None,
        on_scored: OnScored | None = None,
    ) -> Trained:
        """Train until dev has not improved for `patience` epochs, then load the best epoch's weights.

        Utterances without a label are seen by the model and count in no criterion.

        Raises:
            RequestError: If no utterance of train has a label.
            DivergedError: If a loss term or the gradient became NaN or infinite.
            OutOfMemoryError: If memory was exhausted.
        """
        check_labelled(train)
        state, settings = self.state, self.settings
        if state.epoch == 0:  # a state that was loaded brought its random numbers along
            seed_everything(derived_seed(self.seed, "dropout"))
        if isinstance(state.model, FittedModel):
            return self._fit_at_once(state.model, train, dev, score_dev, on_epoch, on_scored)
        criterion = Criterion.for_split(settings, train, state.model.spec.class_count)
        while (ended := self.ended()) is None:
            started = time.perf_counter()
            trained = self._train_epoch(train, criterion)
            epoch = self.end_epoch(trained, dev, score_dev)
            state.training_seconds += time.perf_counter() - started
            if on_scored is not None:
                with self._scored_weights():
                    on_scored(state.epoch, state.model)
            if on_epoch is not None:
                on_epoch(epoch, state)
        return self.chosen(ended, dev, score_dev)

    def ended(self) -> Literal["patience", "epochs"] | None:
        """Why training is over; None: another epoch follows."""
        state = self.state
        if state.epoch >= self.settings.epochs:
            return "epochs"
        return "patience" if state.epoch - state.best_epoch >= self.settings.patience else None

    def end_epoch(self, trained: TrainedEpoch, dev: Split, score_dev: ScoreDev) -> Epoch:
        """Score dev after a pass over train, and keep the weights if no epoch was better.

        Raises:
            DivergedError: If a loss term, the gradient or a score of dev is NaN or infinite.
        """
        state = self.state
        self._check_finite(trained.terms)
        state.epoch += 1
        with self._scored_weights():
            log_probabilities = self.log_probabilities(replace(dev, labels=None))
            metric, dev_values = self._dev_values(score_dev, log_probabilities, dev)
            if metric > state.best_score:
                state.best_epoch, state.best_score = state.epoch, metric
                state.best = {name: value.detach().clone() for name, value in state.model.state_dict().items()}
        epoch = Epoch(
            epoch=state.epoch,
            learning_rate=trained.rate,
            train=trained.terms,
            dev=dev_values,
            diagnostics=trained.diagnostics,
        )
        state.curve.append(epoch)
        return epoch

    def chosen(self, ended: Literal["patience", "epochs"], dev: Split, score_dev: ScoreDev) -> Trained:
        """The model at its best epoch, once training has ended."""
        self.state.model.load_state_dict(self.state.best)
        return self._trained(ended, score_dev, replace(dev, labels=None))

    def _fit_at_once(
        self,
        model: FittedModel,
        train: Split,
        dev: Split,
        score_dev: ScoreDev,
        on_epoch: OnEpoch | None,
        on_scored: OnScored | None,
    ) -> Trained:
        state = self.state
        started = time.perf_counter()
        with MemoryWatch(model, train) as watch:
            model.fit(watch.over(train.in_order(SCORING_BATCH)))
        unlabelled = replace(dev, labels=None)
        log_probabilities = self.log_probabilities(unlabelled)
        state.best_score, dev_values = self._dev_values(score_dev, log_probabilities, dev)
        state.epoch = state.best_epoch = 1
        state.training_seconds = time.perf_counter() - started
        epoch = Epoch(epoch=1, learning_rate=0.0, train={}, dev=dev_values)
        state.curve.append(epoch)
        if on_scored is not None:
            on_scored(1, model)
        if on_epoch is not None:
            on_epoch(epoch, state)
        return self._trained("fitted", score_dev, unlabelled)

    def _trained(self, ended: Literal["patience", "epochs", "fitted"], score_dev: ScoreDev, dev: Split) -> Trained:
        state = self.state
        selection = Selection(
            rule=f"best dev {self.metric}, the earliest of equals",
            metric=self.metric,
            epoch=state.best_epoch,
            score=state.best_score,
            ended=ended,
        )
        return Trained(
            state.model, selection, state.curve, score_dev(self.log_probabilities(dev)), state.training_seconds
        )

    def _train_epoch(self, train: Split, criterion: Criterion) -> TrainedEpoch:
        state, settings = self.state, self.settings
        steps = -(-train.dialogue_count // settings.batch_size)
        possible = steps * settings.epochs
        terms_seen, diagnostics_seen = Sums(), Sums()
        rate = 0.0
        state.model.train()
        with MemoryWatch(state.model, train, settings.batch_size) as watch:
            for batch in watch.over(train.shuffled(settings.batch_size, state.batches)):
                progress = state.step / possible
                rate = self.begin_step(possible)
                with self._autocast():
                    output = self._pass(batch)
                    terms = loss_terms(output, batch, criterion, progress)
                state.scaler.scale(terms["total"]).backward()
                terms_seen.add({**terms, "gradient": self.take_step()})
                diagnostics_seen.add(output.diagnostics)
        return TrainedEpoch(terms_seen.means(steps), diagnostics_seen.means(steps), rate)

    def begin_step(self, possible: int) -> float:
        """Make ready for the gradient of another batch.

        Args:
            possible: Steps of all epochs that there can be.

        Returns:
            The learning rate of the step.
        """
        state = self.state
        rate = self.settings.learning_rate * self.rate_factor(state.step, possible)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        return rate

    def take_step(self) -> Tensor:
        """Change the weights by the gradient that they have.

        Returns:
            The gradient's norm before it was clipped.
        """
        state = self.state
        state.scaler.unscale_(state.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(
            state.model.parameters(), self.settings.clip or float("inf"), foreach=True
        )
        state.scaler.step(state.optimizer)
        state.scaler.update()
        self._average_weights()
        state.step += 1
        return norm

    def _check_finite(self, means: Mapping[str, float]) -> None:
        broken = [name for name, mean in means.items() if not -float("inf") < mean < float("inf")]
        if not broken:
            return
        # The total and the gradient follow from the term that broke first: name that one.
        named = [name for name in broken if name not in ("total", "gradient")] or broken
        if named == ["gradient"] and self.settings.precision == "float16":
            return  # the gradient scaler skips such steps and lowers its scale
        raise DivergedError(
            f"the loss term {' and '.join(named)} became NaN or infinite in epoch {self.state.epoch + 1}. "
            f"Try a lower learning_rate (now {self.settings.learning_rate:g}), "
            f"a lower clip (now {self.settings.clip:g}) or a warmup (now {self.settings.warmup:g})."
        )

    def rate_factor(self, step: int, possible: int) -> float:
        """Share of the learning rate at a step: linear warm-up, then flat or falling to zero."""
        warm = int(self.settings.warmup * possible)
        if step < warm:
            return (step + 1) / (warm + 1)
        if self.settings.schedule == "flat":
            return 1.0
        left = 1 - (step - warm) / max(possible - warm, 1)
        if self.settings.schedule == "linear":
            return left
        return float((1 - torch.cos(torch.tensor(left * torch.pi, dtype=torch.float64))) / 2)

    def _average_weights(self) -> None:
        state = self.state
        if not state.average:
            return
        # The first steps count in full, or the average would start at the random weights.
        decay = min(self.settings.average_decay, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            parameters = dict(state.model.named_parameters())
            torch._foreach_lerp_(list(state.average.values()), [parameters[n] for n in state.average], 1 - decay)

    @contextmanager
    def _scored_weights(self) -> Iterator[None]:
        """Put the averaged weights in the model for scoring, and the trained ones back afterwards."""
        if not self.state.average:
            yield
            return
        parameters = dict(self.state.model.named_parameters())
        kept = {name: p.detach().clone() for name, p in parameters.items()}
        with torch.no_grad():
            for name, averaged in self.state.average.items():
                parameters[name].copy_(averaged)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, trained in kept.items():
                    parameters[name].copy_(trained)

    def _autocast(self) -> torch.amp.autocast_mode.autocast:
        name = self.settings.precision
        dtype = torch.bfloat16 if name != "float16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype, enabled=name != "float32")

    def log_probabilities(self, split: Split) -> Tensor:
        """Log-probabilities of every utterance of a split, in its order: (utterances, classes), on the CPU."""
        with self._autocast():
            return log_probabilities(self.state.model, split)

    def _dev_values(self, score_dev: ScoreDev, log_p: Tensor, dev: Split) -> tuple[float, dict[str, float]]:
        assert dev.labels is not None
        # Before they are scored: NaN has no probability, which would be blamed on the predictions.
        if not bool(torch.isfinite(log_p).all()):
            raise DivergedError(
                f"the model gave NaN or infinite scores on dev in epoch {self.state.epoch}. "
                f"Try a lower learning_rate (now {self.settings.learning_rate:g})."
            )
        scores = score_dev(log_p)
        labels = dev.labels.cpu()
        chosen = labels != NO_LABEL
        loss = F.nll_loss(log_p[chosen], labels[chosen]) if bool(chosen.any()) else torch.zeros(())
        values = {name: number for name in METRICS if (number := getattr(scores, name)) is not None}
        metric = values[self.metric]
        return (metric if METRICS[self.metric].higher_is_better else -metric), {"loss": float(loss), **values}


@torch.inference_mode()
def log_probabilities(model: Model, split: Split) -> Tensor:
    """A model's log-probabilities of every utterance of a split, in the split's order.

    Shapes:
        returns: (utterances, classes), float32, on the CPU.
    """
    model.eval()
    unlabelled = replace(split, labels=None)
    result = torch.empty(split.utterance_count, model.spec.class_count)
    with MemoryWatch(model, split) as watch:
        for batch in watch.over(unlabelled.in_order(SCORING_BATCH, SCORING_PAIRS)):
            log_p = F.log_softmax(model(batch).logits.float(), dim=-1)  # (B, T, classes)
            rows, mask = split.rows(batch.dialogues.cpu())
            result[rows[mask]] = log_p.cpu()[mask]
    return result


class MemoryWatch:
    """Turns every way of running out of memory into one sentence: the model, the longest dialogue, what to do.

    Args:
        batch_size: The setting by which the batches are made; 0 where no setting says how large they are.
    """

    def __init__(self, model: Model, split: Split, batch_size: int = 0) -> None:
        self.model = type(model).__name__
        self.split = split
        self.batch_size = batch_size
        self.batch: Batch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception) or not is_out_of_memory(error):
            return
        if not isinstance(error, MerBenchError):
            raise OutOfMemoryError(self._sentence()) from error

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; the one at hand is the one that a message is about."""
        for batch in batches:
            self.batch = batch
            yield batch
            self.batch = None  # what fails from here on is making the next one

    def _sentence(self) -> str:
        lengths = self.split.lengths
        if self.batch is None:
            longest = int(lengths.argmax())
            where = f"the longest dialogue, {self.split.dialogue_name(longest)}, has {int(lengths[longest])} utterances"
        else:
            chosen = self.batch.dialogues.cpu()
            longest = int(chosen[lengths[chosen].argmax()])
            of = f"in a batch of {len(chosen)}, " if len(chosen) > 1 else "alone in its batch, "
            where = f"{of}dialogue {self.split.dialogue_name(longest)} has {int(lengths[longest])} utterances"
        remedies = [f"lower batch_size (now {self.batch_size})"] if self.batch_size > 1 else []
        remedies += [
            "lower the model's widths",
            "cut such dialogues into shorter ones",
            "take a machine of more memory",
        ]
        advice = f"{', '.join(remedies[:-1])} or {remedies[-1]}."
        return f"{self.model} exhausted the memory on split {self.split.name}: {where}. {advice[0].upper()}{advice[1:]}"
