"""Options that say what is run, and what becomes of their words: `run` and `ablate` share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mer_bench.request import Plan, RunRequest

PUBLISHED = "published"

ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="Which model: mer-bench list models")]
DatasetName = Annotated[str, typer.Option("--dataset", metavar="NAME", help="Which dataset: mer-bench list datasets")]
FeaturesId = Annotated[
    str | None,
    typer.Option("--features", metavar="ID", help="Feature set; default: the dataset's first.", show_default=False),
]
Modalities = Annotated[
    str | None,
    typer.Option(
        "--modalities", metavar="LIST", help="Such as text,audio; default: the feature set's.", show_default=False
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="One run with this seed; default 0.")]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", min=1, help="This many runs, with the seeds 0, 1, 2 and so on."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the model or the trainer; repeat for more."),
]
SettingsFile = Annotated[
    str | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="TOML file of such fields, or 'published': the paper's own; --set wins over it.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the records.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads; default: PyTorch's choice.")
]

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Follow the run in tensorboard, mlflow or wandb; repeat for more.",
        show_default=False,
    ),
]
TrackTo = Annotated[
    Path, typer.Option("--track-to", metavar="DIR", help="Folder where they write, each in one of its own name.")
]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="On cuda: the same bits every time, or quicker ways whose last bits differ; the CPU is always exact.",
    ),
]


def parse_modalities(text: str | None) -> tuple[str, ...] | None:
    """`text,audio` as names; whether they exist is the runner's to say.

    Raises:
        RequestError: If a name is empty or stands twice.
    """
    from mer_bench.errors import RequestError

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise RequestError(f"modalities are names with commas between them, as in text,audio, but '{text}' was given.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RequestError(f"the modality '{twice[0]}' stands twice in --modalities {text}.")
    return names


def given_settings(request: RunRequest, file: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    """The settings that were given, `--set` over `--settings`.

    Raises:
        RequestError: If the file cannot be read, or the card holds no settings of the paper.
    """
    from mer_bench import registry, runner
    from mer_bench.config import merge_settings, parse_assignment
    from mer_bench.errors import RequestError

    layers: list[Mapping[str, Any]] = []
    if file == PUBLISHED:
        published = registry.models().find(request.model).card.published
        if not published:
            raise RequestError(f"the card of {request.model} holds no settings of its paper.")
        if request.dataset not in published and "default" not in published:
            raise RequestError(
                f"the card of {request.model} holds its paper's settings for {', '.join(published)}, "
                f"not for {request.dataset}."
            )
        layers += [published.get("default", {}), published.get(request.dataset, {})]
    elif file is not None:
        layers.append(runner.read_settings_file(Path(file)))
    layers += [dict([parse_assignment(text)]) for text in assignments]
    return merge_settings(*layers)


def planned(request: RunRequest, file: str | None, assignments: Sequence[str]) -> Plan:
    """The runner's plan; a faulty setting is blamed on the very words that were given."""
    from mer_bench import runner
    from mer_bench.config import parse_assignment
    from mer_bench.errors import SettingError, UnknownNameError

    origins = {} if file is None else dict.fromkeys(request.settings, f"from --settings {file}")
    origins |= {parse_assignment(text)[0]: f"from --set {text}" for text in assignments}
    try:
        return runner.plan(request)
    except SettingError as error:
        name = str(error).partition(" ")[0]
        if name not in origins:
            raise
        raise SettingError(str(error).replace("from --set or --settings", origins[name])) from error
    except UnknownNameError as error:
        if error.given not in origins:
            raise
        text = str(error).replace("info MODEL", f"info {request.model}")
        error.args = (text.replace("from --set or --settings", origins[error.given]),)
        raise
