"""mer-bench: compare models of multimodal emotion recognition in conversation, fairly and fast.

From Python::

    record = mer_bench.run(model="cmath", dataset="meld", seed=0)
    record.test.weighted_f1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from mer_bench.ablation import Ablation
    from mer_bench.applying import Labelled
    from mer_bench.records import Record

__version__ = "0.1.0"


def run(
    model: str,
    dataset: str,
    *,
    track: Sequence[str] = (),
    track_to: Path | str = "tracked",
    **options: Any,
) -> Record:
    """Train and score one model; the same as `mer-bench run`, without its fall-back to synthetic data.

    Args:
        model, dataset: Names as `mer-bench list` shows them.
        track: Trackers that follow the run: `tensorboard`, `mlflow`, `wandb`. One that fails is dropped with a
            warning, and the run goes on.
        track_to: Folder where they write.
        options: Any field of `mer_bench.runner.RunRequest`: `seed`, `modalities`, `settings`, `out`, ...

    Raises:
        RequestError: If the request is wrong, data are missing, or a tracker is not installed.
        RunError: If the run failed; a record of status `failed` says why.
    """
    from mer_bench import runner

    request = runner.RunRequest(model=model, dataset=dataset, **_with_paths(options))
    if not track:
        return runner.run(request)
    import warnings
    from pathlib import Path

    from mer_bench.trackers import Following

    # Nothing of the run changes where a tracker is lost, so that no error would be due.
    with Following(track, Path(track_to), lambda line: warnings.warn(line, stacklevel=2)) as following:
        return runner.run(request, following)


def score(predictions: Path | str, dataset: str, name: str, selection: str, **options: Any) -> Record:
    """Score what some other system predicted, and write a record of kind `external`; the same as `mer-bench score`.

    Args:
        predictions: A CSV, JSONL or Parquet file of utterance ids with labels or class scores.
        dataset: Name as `mer-bench list` shows it.
        name: Of the system.
        selection: How model, prompt or epoch were chosen; shown as stated. `zero-shot` and `unknown` are answers.
        options: Any field of `mer_bench.external.ScoreRequest`: `modalities`, `labels`, `source`, `seed`, `out`, ...

    Raises:
        RequestError: If the request or the file is wrong, or data are missing.
        StorageError: If the record could not be written.
    """
    from pathlib import Path

    from mer_bench import external

    request = external.ScoreRequest(Path(predictions), dataset, name, selection, **_with_paths(options))
    return external.score(request).record


def add_plugin(path: Path | str) -> tuple[str, ...]:
    """Take a model of your own without installing it; the same as `--plugin PATH` on the command line::

        (name,) = mer_bench.add_plugin("my_model.py")
        record = mer_bench.run(model=name, dataset="meld")

    Args:
        path: A .py file whose card is a comment block, a plugin folder (with a card.toml), or a folder of such folders.

    Returns:
        The names of its models. The same path again takes what is there now.

    Raises:
        RequestError: If there is no plugin at the path, its card is broken, or another model has the name.
    """
    from mer_bench import registry

    return registry.add_plugin(path)


def ablate(
    model: str, dataset: str, seeds: Sequence[int] = (0,), only: Sequence[str] | None = None, **options: Any
) -> Ablation:
    """What a model's parts and its modalities are worth; the same as `mer-bench ablate`.

    Args:
        model, dataset: Names as `mer-bench list` shows them.
        seeds: Of every run.
        only: Some of the tables `modalities`, `missing` and `settings`; None: all of them.
        options: Any field of `mer_bench.runner.RunRequest` but the seed: `modalities`, `settings`, `out`, ...

    Raises:
        RequestError: If the request is wrong or data are missing.
        StorageError: If results could not be written. Runs that failed are in the answer's `failed`.
    """
    from mer_bench import ablation, runner

    run = runner.RunRequest(model=model, dataset=dataset, **_with_paths(options))
    tables = ablation.TABLES if only is None else tuple(only)
    return ablation.ablate(ablation.AblationRequest(run, tuple(seeds), tables))


def predict(run: Path | str, dialogues: Path | str | Iterable[Mapping[str, Any]], **options: Any) -> Labelled:
    """Label new dialogues with a trained model; the same as `mer-bench predict`::

        said = [
            {"dialogue": 1, "speaker": "Ann", "text": "You came!"},
            {"dialogue": 1, "speaker": "Bo", "text": "I did."},
        ]
        mer_bench.predict("runs/meld/textonly/....json", said).labels

    Args:
        run: The record of a run, with its weights beside it.
        dialogues: A file (CSV, JSONL or Parquet), or rows as mappings with `dialogue`, `speaker` and `text`.
        options: Any further field of `mer_bench.applying.Application`: `fold`, `arrays`, `data_root`, ...

    Raises:
        RequestError: If the record, its weights, its features or the dialogues are not what is needed.
    """
    from pathlib import Path

    from mer_bench import applying

    source = Path(dialogues) if isinstance(dialogues, str) else dialogues
    return applying.predict(applying.Application(Path(run), source, **_with_paths(options)))


def _with_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request; its folders may be given as texts."""
    from pathlib import Path

    folders = {name: Path(options[name]) for name in ("out", "data_root") if isinstance(options.get(name), str)}
    return {**options, **folders}
