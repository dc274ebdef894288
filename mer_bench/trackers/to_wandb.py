"""Weights & Biases: offline unless WANDB_MODE says otherwise, a folder a run that `wandb sync` sends later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import wandb

from mer_bench.trackers.tracker import Tracker, Value


class ToWandb(Tracker):
    """Logs to a project called mer-bench."""

    def begin(self, name: str, settings: Mapping[str, Value]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        dataset, _, run = name.partition("/")
        self.run = wandb.init(
            project="mer-bench",
            group=dataset,
            name=run,
            dir=str(self.folder),
            config=dict(settings),
            reinit="create_new",
        )

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def end(self, scores: Mapping[str, float], record: Path) -> None:
        for key, value in scores.items():
            self.run.summary[key] = value
        artefact = wandb.Artifact(record.stem.replace("/", "-")[:120], type="record")
        artefact.add_file(str(record))
        self.run.log_artifact(artefact)
        self.run.finish(exit_code=0)

    def fail(self, reason: str) -> None:
        self.run.summary["failure"] = reason
        self.run.finish(exit_code=1)
