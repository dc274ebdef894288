"""A stranger's package: installed into a fresh environment it is listed, checked and run like any other.

The environment sees the packages that are installed here, so that nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from mer_bench.templates.writing import write_model

FILES = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "their-emotions"
version = "0.3"
dependencies = ["mer-bench"]

[project.entry-points."mer_bench.models"]
theirs = "their_emotions"

[tool.setuptools]
packages = ["their_emotions", "their_emotions.tiny_gru", "their_emotions.broken_card", "their_emotions.broken_code"]

[tool.setuptools.package-data]
"*" = ["*.toml"]
""",
    "their_emotions/__init__.py": '"""Their models."""\n',
    "their_emotions/tiny_gru/__init__.py": '"""A small recurrent network."""\n',
    "their_emotions/tiny_gru/card.toml": """
title = "Tiny GRU"
summary = "A recurrent layer over summed modalities."
entry = "model:TinyGru"
config = "config:TinyGruSettings"
modalities = ["text", "audio", "visual"]
causal = true
uses_speakers = false
ours = ["all of it"]
[settings.default]
learning_rate = 5e-3
""",
    "their_emotions/tiny_gru/config.py": '''"""Settings of the network."""

from typing import Annotated

from mer_bench.config import Field, Settings, Tune


class TinyGruSettings(Settings):
    """Width of the recurrent layer."""

    hidden_dim: Annotated[int, Field(ge=4, le=128), Tune(low=8, high=64, step=8)] = 16
''',
    "their_emotions/tiny_gru/model.py": '''"""The network."""

from torch import nn

from mer_bench.api import Batch, InputSpec, Model, Output

from .config import TinyGruSettings


class TinyGru(Model):
    """Sums the modalities that are present, reads them in order, and labels each turn."""

    def __init__(self, spec: InputSpec, settings: TinyGruSettings) -> None:
        super().__init__(spec, settings)
        width = settings.hidden_dim
        self.inputs = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.context = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        turns = sum(
            layer(batch.features[name] * batch.present[name].unsqueeze(-1)) * batch.mask.unsqueeze(-1)
            for name, layer in self.inputs.items()
        )  # (B, T, width)
        context, _ = self.context(turns)
        return Output(self.head(context))
''',
    "their_emotions/broken_card/__init__.py": "",
    "their_emotions/broken_card/card.toml": 'title = "Broken"\nsumary = "A word too few."\n',
    "their_emotions/broken_code/__init__.py": "",
    "their_emotions/broken_code/config.py": "from mer_bench.config import Settings as Broken\n",
    "their_emotions/broken_code/model.py": "import a_library_that_nobody_has\n",
    "their_emotions/broken_code/card.toml": """
title = "Broken"
summary = "Its code needs what is not there."
entry = "model:Broken"
config = "config:Broken"
modalities = ["text"]
ours = ["all of it"]
""",
}


class Environment:
    """A fresh virtual environment."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        shared = sorted({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]})
        # `addsitedir` and not the bare folder, so that an editable install there is followed too.
        lines = [f"import site; site.addsitedir({folder!r})\n" for folder in shared]
        (Path(paths["purelib"]) / "installed_here.pth").write_text("".join(lines), encoding="utf-8")

    def run(self, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MER_"))}
        return subprocess.run(
            [str(self.python), *arguments],
            env={**environment, "OMP_NUM_THREADS": "1"},
            cwd=self.python.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def mer_bench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", "from mer_bench.cli import main; main()", *arguments)


def needs_a_builder() -> None:
    """Skip the test where no package can be built without a network."""
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed here, so that no package can be built without a network")


def install(fresh: Environment, source: Path) -> None:
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    installed = fresh.run("-m", "pip", "install", *offline, str(source))
    assert installed.returncode == 0, installed.stderr


def answer(finished: subprocess.CompletedProcess[str]) -> Any:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    needs_a_builder()
    source = tmp_path_factory.mktemp("source")
    for name, text in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    fresh = Environment(tmp_path_factory.mktemp("fresh") / "environment")
    install(fresh, source)
    return fresh


def test_package_stands_in_the_fresh_environment_alone(environment: Environment) -> None:
    found = environment.run("-c", "import their_emotions; print(their_emotions.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(environment.python.parents[1])
    assert importlib.util.find_spec("their_emotions") is None


def test_model_is_listed_and_broken_siblings_are_named(environment: Environment) -> None:
    listed = answer(environment.mer_bench("list", "models", "--json"))
    found = {model["name"]: model for model in listed["models"]}
    assert found["tiny-gru"]["distribution"] == "their-emotions"
    assert found["majority"]["distribution"] == "mer-bench"
    assert [(broken["name"], broken["package"]) for broken in listed["broken"]] == [
        ("broken-card", "their_emotions.broken_card")
    ]
    assert "is not a complete card" in listed["broken"][0]["reason"]
    assert "broken-code" in found  # looking around imports no code


def test_sound_model_passes_the_kit(environment: Environment) -> None:
    checked = answer(environment.mer_bench("check", "tiny-gru", "--json"))
    outcomes = {result["name"]: (result["status"], result["reason"]) for result in checked["checks"]}
    assert {name: outcome for name, outcome in outcomes.items() if outcome[0] != "passed"} == {
        "variants": ("excused", "the card lists no settings other than those of the other checks")
    }


def test_sound_model_runs(environment: Environment, tmp_path: Path) -> None:
    finished = environment.mer_bench(
        *("run", "--model", "tiny-gru", "--dataset", "meld-synthetic", "--set", "epochs=1", "--device", "cpu"),
        *("--out", str(tmp_path / "runs"), "--data-root", str(tmp_path / "data")),
    )
    assert finished.returncode == 0, finished.stderr
    (file,) = (tmp_path / "runs").rglob("*.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert (record["model"], record["dataset"], record["synthetic"]) == ("tiny-gru", "meld-synthetic", True)
    assert 0 < record["test"]["weighted_f1"] < 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("broken-card", "is not a complete card"),
        ("broken-code", "No module named 'a_library_that_nobody_has'"),
    ],
)
def test_broken_sibling_is_refused_in_one_sentence(environment: Environment, name: str, reason: str) -> None:
    for command in (("check", name), ("run", "--model", name, "--dataset", "meld-synthetic")):
        finished = environment.mer_bench(*command)
        assert finished.returncode in (1, 2)
        assert reason in " ".join((finished.stdout + finished.stderr).split())
        assert "Traceback" not in finished.stderr


def test_a_package_of_theirs_is_checked_as_a_whole(environment: Environment) -> None:
    for target in ("their-emotions", "their_emotions"):
        finished = environment.mer_bench("check", target, "--json")
        assert finished.returncode == 1
        told = json.loads(finished.stdout)
        assert {each["name"]: each["passed"] for each in told["plugins"]} == {
            "tiny-gru": True,
            "broken-card": False,
            "broken-code": False,
        }


def test_a_run_of_theirs_tells_which_code_it_was(environment: Environment, tmp_path: Path) -> None:
    finished = environment.mer_bench(
        *("run", "--model", "tiny-gru", "--dataset", "meld-synthetic", "--set", "epochs=1", "--device", "cpu"),
        *("--out", str(tmp_path / "runs"), "--data-root", str(tmp_path / "data"), "--json"),
    )
    assert answer(finished)["model_code"]["origin"] == "their-emotions"


def test_the_package_that_new_model_writes_installs_and_passes_its_own_tests(tmp_path: Path) -> None:
    needs_a_builder()
    plugin, _ = write_model("my-model", "package", tmp_path)
    fresh = Environment(tmp_path / "environment")
    install(fresh, tmp_path / "my-model")
    listed = answer(fresh.mer_bench("list", "models", "--json"))
    assert {model["name"]: model["distribution"] for model in listed["models"]}["my-model"] == "my-model"
    assert answer(fresh.mer_bench("check", "my_model_shelf", "--json"))["passed"] is True
    tested = fresh.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "my-model"))
    assert tested.returncode == 0, tested.stdout
    assert "passed" in tested.stdout
    taken = fresh.mer_bench("list", "models", "--plugin", str(plugin))
    assert taken.returncode == 2
    assert "my_model_shelf.my_model has that name" in taken.stderr
