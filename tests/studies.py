"""Studies as `mer-bench tune` leaves them."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from mer_bench.tuning.kept import KeptStudy
from mer_bench.tuning.study import ABOUT, BUDGET

SPACE: dict[str, dict[str, Any]] = {
    "width": {"of": "model", "start": 64, "low": 64, "high": 256, "step": 64, "log": False},
    "learning_rate": {"of": "trainer", "start": 0.001, "low": 0.0001, "high": 0.01, "step": None, "log": True},
    "schedule": {"of": "trainer", "start": "flat", "choices": ["flat", "cosine"]},
    "heads": {"of": "model", "start": 2, "choices": [2, 4], "when": {"schedule": "flat"}},
}
EVIL = "<script>alert('x')</script> & </script>"


def about(**changes: Any) -> dict[str, Any]:
    return {
        "model": "gru",
        "model_version": 1,
        "model_code": None,
        "dataset": "meld-synthetic",
        "labels": "meld-synthetic/emotion",
        "features": "meld-synthetic/default",
        "data_checksum": "0" * 64,
        "protocol": "meld-synthetic/official",
        "protocol_version": 1,
        "modalities": ["text"],
        "metric": "weighted_f1",
        "synthetic": True,
        "space": SPACE,
        "fixed": {"epochs": 6},
        "seeds": [0],
        "sampler": "tpe",
        "pruner": "median",
        **changes,
    }


def make_study(
    storage: str | None = None, name: str = "gru.meld", trials: int = 12, costly: bool = False, **changes: Any
) -> KeptStudy:
    """A study as `mer-bench tune` leaves it, without the hours."""
    maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [maximize, minimize] if costly else [maximize]
    study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    study.set_user_attr(ABOUT, about(**changes))
    study.set_user_attr(BUDGET, {"trials": 12, "timeout": None})
    distributions: dict[str, Any] = {
        "width": optuna.distributions.IntDistribution(64, 256, step=64),
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "schedule": optuna.distributions.CategoricalDistribution(["flat", "cosine"]),
        "heads": optuna.distributions.CategoricalDistribution([2, 4]),
    }
    for number in range(trials):
        flat = number % 3 != 1
        params: dict[str, Any] = {
            "width": 64 * (1 + number % 4),
            "learning_rate": 0.001 if number == 0 else 10 ** (-4 + 2 * number / 12),
            "schedule": "flat" if flat else "cosine",
            **({"heads": 2 + 2 * (number // 6)} if flat else {}),
        }
        state = {4: TrialState.PRUNED, 7: TrialState.FAIL}.get(number, TrialState.COMPLETE)
        score = 0.3 + 0.02 * number - 0.0001 * params["width"]
        seconds = 1.0 + (number * 5) % 7
        reason = {"reason": EVIL, "kind": "RunError"} if state == TrialState.FAIL else {}
        study.add_trial(
            create_trial(
                state=state,
                values=None if state != TrialState.COMPLETE else [score, seconds][: len(directions)],
                params=params,
                distributions={key: distributions[key] for key in params},
                intermediate_values={} if costly else {step: score - 0.1 / step for step in range(1, 4)},
                user_attrs={
                    "settings": {"epochs": 6, **params},
                    "seconds": seconds,
                    "epochs": 6,
                    "parameters": 1000 * number,
                    "scores": [score],
                    **reason,
                },
            )
        )
    return KeptStudy(study)
