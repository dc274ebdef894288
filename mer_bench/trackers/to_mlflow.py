"""MLflow: an experiment a dataset, a run each time a model is run.

Without MLFLOW_TRACKING_URI the store is a local one, `<folder>/mlflow.db` with its artefacts beside it: look at it
with `mlflow ui --backend-store-uri sqlite:///<folder>/mlflow.db`. With it, runs go where it says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mer_bench.trackers.tracker import Tracker, Value

_PARAMETERS_A_CALL = 100
_LONGEST_VALUE = 500
"""Characters of a parameter that every MLflow server takes."""


class ToMlflow(Tracker):
    """Logs to a tracking store by its client, which leaves no global state."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.local = "MLFLOW_TRACKING_URI" not in os.environ
        if self.local:
            folder.mkdir(parents=True, exist_ok=True)
        self.client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}" if self.local else None)
        self.run = ""

    def begin(self, name: str, settings: Mapping[str, Value]) -> None:
        dataset, _, run = name.partition("/")
        self.run = self.client.create_run(self._experiment(f"mer-bench/{dataset}"), run_name=run).info.run_id
        parameters = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in settings.items()]
        for start in range(0, len(parameters), _PARAMETERS_A_CALL):
            self.client.log_batch(self.run, params=parameters[start : start + _PARAMETERS_A_CALL])

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(key, value, now, step) for key, value in values.items()])

    def end(self, scores: Mapping[str, float], record: Path) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run,
            metrics=[Metric(key, value, now, 0) for key, value in scores.items()],
            tags=[RunTag("mlflow.runName", record.stem)],
        )
        self.client.log_artifact(self.run, str(record))
        self.client.set_terminated(self.run, "FINISHED")

    def fail(self, reason: str) -> None:
        self.client.set_tag(self.run, "failure", reason)
        self.client.set_terminated(self.run, "FAILED")

    def _experiment(self, name: str) -> str:
        """Its id; of two processes that make it at once, the second takes the first's."""
        place = (self.folder / "artifacts").as_uri() if self.local else None
        for _ in range(2):
            if found := self.client.get_experiment_by_name(name):
                return str(found.experiment_id)
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
        raise RuntimeError(f"the experiment {name} comes and goes")
