"""What a person sees while an ablation goes on: which run of how many, and the epochs of each."""

from __future__ import annotations

from mer_bench.ablation import AblationListener
from mer_bench.cli.console import Bar, Screen, percent
from mer_bench.cli.progress import ProgressListener
from mer_bench.errors import MerBenchError
from mer_bench.records import Record
from mer_bench.request import Plan


class AblationProgress(ProgressListener, AblationListener):
    """Shows the runs of an ablation one after another."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._head = ""

    def ablation_started(self, plan: Plan, runs: int, conditions: int) -> None:
        scored = f", and test scored under {conditions} conditions for each seed" if conditions else ""
        self._screen.line(
            f"{plan.model_title} on {plan.features}: {runs} {'model' if runs == 1 else 'models'} to train{scored}"
        )

    def variant_started(self, name: str, seed: int, number: int, runs: int) -> None:
        self._end_bar()
        self._head = f"{number}/{runs} {name}, seed {seed}: "

    def run_started(self, plan: Plan) -> None:
        self._screen.line(f"{self._head}training on {' + '.join(plan.modalities)}")
        self._start(plan)

    def variant_found(self, record: Record) -> None:
        score = percent(record.test.weighted_f1 if record.test else None)
        self._screen.line(f"{self._head}there already, test weighted F1 {score}", tone="quiet")

    def variant_failed(self, name: str, seed: int, error: MerBenchError) -> None:
        self._end_bar()
        self._screen.warn(f"{name}, seed {seed} failed: {error}")

    def weights_lost(self, record: Record) -> None:
        self._screen.line(f"the weights of {record.run} are gone or not its own; it is trained again")

    def conditions_found(self, conditions: int) -> None:
        self._screen.line(f"{self._head}test under {conditions} conditions, there already", tone="quiet")

    def condition_scored(self, record: Record, number: int, conditions: int) -> None:
        if self._screen.is_terminal:
            if not self._bar:
                self._bar = Bar(self._screen, conditions)
                self._bar.__enter__()
            name = record.test_condition.full_name if record.test_condition else ""
            self._bar.show(f"{self._head}test under {conditions} conditions", name, number)
        if number == conditions:
            self._end_bar()
            self._screen.line(f"{self._head}test scored under {conditions} conditions")
