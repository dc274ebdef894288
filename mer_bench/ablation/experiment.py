"""One request → the three tables: what is there already is taken as it is, the rest is run, failures are told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from mer_bench.ablation.conditions import TrainedRun, conditions_of, reachable_rates, trained_run
from mer_bench.ablation.tables import Row, Table, make_row, make_table
from mer_bench.ablation.variants import TABLES, WHOLE, Variant, Variants, modality_variants, setting_variants
from mer_bench.data.missing import RATES
from mer_bench.errors import MerBenchError, RequestError, StorageError, UnknownNameError
from mer_bench.recording import Recording
from mer_bench.records import Condition, Record
from mer_bench.request import Plan, RunRequest, plan
from mer_bench.runner import Listener, Opened, open_device, open_run, run_opened


@dataclass(frozen=True)
class AblationRequest:
    """What the user asked for.

    Attributes:
        run: The whole model's run; its seed is not used.
        seeds: Of every row.
        only: Names of the tables that are wanted.
    """

    run: RunRequest
    seeds: tuple[int, ...] = (0,)
    only: tuple[str, ...] = TABLES


@dataclass(frozen=True)
class Failed:
    """A run that failed: its row, its seed and why. Its record says so too."""

    name: str
    seed: int
    error: MerBenchError


@dataclass(frozen=True)
class Ablation:
    """What came out.

    Attributes:
        plan: Of the whole model, without regard to the seed.
        tables: By name; those that were asked for.
        failed: Runs that have no scores.
    """

    plan: Plan
    seeds: tuple[int, ...]
    tables: dict[str, Table]
    failed: tuple[Failed, ...]


class AblationListener(Listener):
    """Hears of an ablation's progress, and of that of each of its runs."""

    def ablation_started(self, plan: Plan, runs: int, conditions: int) -> None:
        """The request is right; so many models will be trained, and each whole one is scored so often."""

    def variant_started(self, name: str, seed: int, number: int, runs: int) -> None:
        """Model `number` of `runs` is next: it is trained, or its record is there."""

    def variant_found(self, record: Record) -> None:
        """Its record is there; nothing is trained."""

    def variant_failed(self, name: str, seed: int, error: MerBenchError) -> None:
        """It has no scores; the others go on."""

    def weights_lost(self, record: Record) -> None:
        """The record is there, but not the weights that the conditions need: the model is trained again."""

    def conditions_found(self, conditions: int) -> None:
        """The records of all conditions of the model are there."""

    def condition_scored(self, record: Record, number: int, conditions: int) -> None:
        """The test split was scored under a condition, or the record of that one was there."""


def ablate(request: AblationRequest, listener: AblationListener | None = None) -> Ablation:
    """Run what is not there yet, and tabulate it all.

    A run that fails leaves a record of status `failed` and is tried again the next time; the others go on.

    Raises:
        RequestError: If the request is wrong or data are missing; nothing is run then.
        StorageError: If results could not be written.
    """
    return _Experiment(request, listener or AblationListener()).finish()


class _Experiment:
    """The work of one ablation."""

    def __init__(self, request: AblationRequest, listener: AblationListener) -> None:
        unknown = [name for name in request.only if name not in TABLES]
        if unknown:
            raise UnknownNameError("table of an ablation", unknown[0], TABLES)
        if not request.seeds or not request.only:
            raise RequestError("an ablation needs at least one seed and one table.")
        self.request = request
        self.listener = listener
        self.plan = plan(replace(request.run, seed=min(request.seeds)))
        self.variants = {
            name: find(self.plan)
            for name, find in (("modalities", modality_variants), ("settings", setting_variants))
            if name in request.only
        }
        self.conditions = self._condition_names() if "missing" in request.only else Variants((), ())
        self._check_worth_while()
        self.failed: list[Failed] = []
        self.done: dict[str, dict[int, list[Record]]] = {}
        self.number = 0

    def finish(self) -> Ablation:
        listener, seeds = self.listener, self.request.seeds
        device = open_device(self.plan.request)
        opened = open_run(self.plan, device, listener)
        listener.ablation_started(self.plan, self.runs, len(self._conditions(opened, "0" * 64)))
        for seed in seeds:
            whole = replace(opened, plan=_with_seed(self.plan, seed))
            record = self._record(WHOLE, whole)
            if record and "missing" in self.request.only:
                self._score_under_conditions(whole, record)
        for table, variants in self.variants.items():
            for variant in variants.variants:
                for seed in seeds:
                    self._record(f"{table}/{variant.name}", replace(opened, plan=_with_seed(variant.plan, seed)))
        tables = {} if WHOLE not in self.done else dict(self._tables())
        return Ablation(self.plan, seeds, tables, tuple(self.failed))

    @property
    def runs(self) -> int:
        """How many models there are to train."""
        return len(self.request.seeds) * (1 + sum(len(each.variants) for each in self.variants.values()))

    def _condition_names(self) -> Variants:
        modalities = self.plan.modalities
        if len(modalities) == 1:
            return Variants((), (f"{self.plan.model} reads {modalities[0]} alone here, which cannot be missing.",))
        left_out = [f"{rate:g}" for rate in RATES if rate not in reachable_rates(len(modalities))]
        note = (
            f"random rates {', '.join(left_out)} were left out: one modality of each utterance stays, so that of "
            f"{len(modalities)} no more than {100 * (len(modalities) - 1) / len(modalities):.0f} % can be missing."
        )
        return Variants((), (note,) if left_out else ())

    def _check_worth_while(self) -> None:
        notes = [*self.conditions.notes, *(note for each in self.variants.values() for note in each.notes)]
        scored = "missing" in self.request.only and len(self.plan.modalities) > 1
        if not scored and not any(each.variants for each in self.variants.values()):
            raise RequestError(f"there is nothing to ablate: {' '.join(dict.fromkeys(notes))}")

    def _conditions(self, opened: Opened, model_of: str) -> list[Condition]:
        if "missing" not in self.request.only:
            return []
        utterances = [store.manifest.counts["test"].utterances for store in opened.stores]
        return conditions_of(self.plan.modalities, utterances, model_of)

    def _record(self, name: str, opened: Opened) -> Record | None:
        """The record of a run that was done now or before; None where it failed."""
        seed = opened.plan.request.seed
        self.number += 1
        self.listener.variant_started(name.rpartition("/")[2], seed, self.number, self.runs)
        record = Recording(opened.plan, opened.stores).found()
        if record:
            self.listener.variant_found(record)
        else:
            record = self._run(name, opened)
        if record:
            self.done.setdefault(name, {})[seed] = [record]
        return record

    def _run(self, name: str, opened: Opened) -> Record | None:
        self.listener.run_started(opened.plan)
        try:
            return run_opened(opened, self.listener)
        except StorageError:
            raise
        except MerBenchError as error:
            self._note_failure(name, opened.plan.request.seed, error)
            return None

    def _note_failure(self, name: str, seed: int, error: MerBenchError) -> None:
        shown = name.rpartition("/")[2]
        self.failed.append(Failed(shown, seed, error))
        self.listener.variant_failed(shown, seed, error)

    def _score_under_conditions(self, opened: Opened, record: Record) -> None:
        conditions = self._conditions(opened, record.identity)
        there = [Recording(opened.plan, opened.stores, condition).found() for condition in conditions]
        if all(there):
            for found in there:
                self._keep(found)
            if conditions:
                self.listener.conditions_found(len(conditions))
            return
        trained = self._trained(opened, record)
        if trained is None:
            return
        for number, condition in enumerate(conditions, 1):
            try:
                scored = trained.score(condition)
            except StorageError:
                raise
            except MerBenchError as error:
                self._note_failure(condition.full_name, record.seed, error)
                continue
            self._keep(scored)
            self.listener.condition_scored(scored, number, len(conditions))

    def _trained(self, opened: Opened, record: Record) -> TrainedRun | None:
        """The models of a run; trained again where their weights are gone."""
        trained = trained_run(opened, record)
        if trained:
            return trained
        self.listener.weights_lost(record)
        again = self._run(WHOLE, opened)
        if again:
            self.done[WHOLE][again.seed] = [again]
        return trained_run(opened, again) if again else None

    def _keep(self, scored: Record | None) -> None:
        assert scored
        assert scored.test_condition
        name = f"missing/{scored.test_condition.name}"
        self.done.setdefault(name, {}).setdefault(scored.seed, []).append(scored)

    def _tables(self) -> Iterator[tuple[str, Table]]:
        whole = make_row(WHOLE, list(self.done[WHOLE].values()))
        out = self.request.run.out
        for name in TABLES:
            if name == "missing" and "missing" in self.request.only:
                rows, notes = self._condition_rows(), self.conditions.notes
            elif name in self.variants:
                rows, notes = self._variant_rows(name, self.variants[name].variants), self.variants[name].notes
            else:
                continue
            yield name, make_table(name, whole, rows, notes, out)

    def _condition_rows(self) -> list[Row]:
        found = {name: by_seed for name, by_seed in self.done.items() if name.startswith("missing/")}
        rows = []
        for name, by_seed in found.items():
            most = max(len(records) for records in by_seed.values())
            whole = [records for records in by_seed.values() if len(records) == most]  # a mask may have failed
            rows.append(make_row(name.rpartition("/")[2], whole))
        return rows

    def _variant_rows(self, table: str, variants: Sequence[Variant]) -> list[Row]:
        return [
            make_row(each.name, list(self.done[f"{table}/{each.name}"].values()), each.question, each.changes)
            for each in variants
            if f"{table}/{each.name}" in self.done
        ]


def _with_seed(planned: Plan, seed: int) -> Plan:
    return replace(planned, request=replace(planned.request, seed=seed))


def seeds_from(seed: int | None, seeds: int | None) -> tuple[int, ...]:
    """`--seed` and `--seeds` as seeds: one of them, or 0 and those after it.

    Raises:
        RequestError: If both are given.
    """
    if seed is not None and seeds is not None:
        raise RequestError(f"--seed {seed} is one run and --seeds {seeds} are several; give one of the two.")
    return tuple(range(seeds)) if seeds is not None else (seed or 0,)


def chosen_tables(only: Collection[str] | None) -> tuple[str, ...]:
    """The tables that are named, in their own order; all of them where none is."""
    if not only:
        return TABLES
    unknown = [name for name in only if name not in TABLES]
    if unknown:
        raise UnknownNameError("table of an ablation", unknown[0], TABLES)
    return tuple(name for name in TABLES if name in only)
