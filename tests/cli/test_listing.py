"""`mer-bench list`: everything that is installed, fast, and broken plugins by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import MappingProxyType

import pytest

from mer_bench import registry
from mer_bench.cli.listing import LISTINGS
from mer_bench.metrics import METRICS
from mer_bench.registry import BrokenPlugin, Plugin, Shelf

from .conftest import Invoke


@pytest.mark.parametrize("kind", LISTINGS)
def test_every_kind_is_listed_as_a_table_and_as_json(invoke: Invoke, kind: str) -> None:
    table, answer = invoke("list", kind), invoke("list", kind, "--json")
    assert table.exit_code == answer.exit_code == 0
    entries = json.loads(answer.stdout)[kind]
    assert entries
    for entry in entries:
        assert entry.get("name", entry.get("id")) in table.stdout


def test_all_models_and_datasets_are_there(invoke: Invoke) -> None:
    for kind, shelf in (("models", registry.models()), ("datasets", registry.datasets())):
        names = [entry["name"] for entry in json.loads(invoke("list", kind, "--json").stdout)[kind]]
        assert names == sorted(shelf.plugins)
    metrics = json.loads(invoke("list", "metrics", "--json").stdout)["metrics"]
    assert [metric["name"] for metric in metrics] == list(METRICS)


def test_synthetic_data_are_called_so(invoke: Invoke) -> None:
    data = {
        entry["name"]: entry["synthetic"]
        for entry in json.loads(invoke("list", "datasets", "--json").stdout)["datasets"]
    }
    assert (data["meld"], data["meld-synthetic"]) == (False, True)


@pytest.mark.parametrize(("given", "nearest"), [("modles", "models"), ("model", "models"), ("dataset", "datasets")])
def test_a_mistyped_kind(invoke: Invoke, given: str, nearest: str) -> None:
    result = invoke("list", given)
    assert result.exit_code == 2
    assert f"Did you mean '{nearest}'" in result.stderr


def test_a_broken_plugin_is_named_with_its_reason_and_harms_no_other(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BrokenPlugin("wreck", "strangers.wreck", "strangers/wreck/card.toml is not valid TOML: line 3.")
    shelf = registry.models()
    monkeypatch.setattr(registry, "models", lambda: Shelf("model", shelf.plugins, (broken,)))
    result = invoke("list", "models")
    assert result.exit_code == 0
    assert f"wreck (strangers.wreck) cannot be used: {broken.reason}" in result.stderr
    assert "majority" in result.stdout
    answer = json.loads(invoke("list", "models", "--json").stdout)
    assert answer["broken"] == [{"name": "wreck", "package": "strangers.wreck", "reason": broken.reason}]


def test_a_strangers_plugin_says_whose_it_is(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mer-bench" not in invoke("list", "models").stdout
    own = registry.models().plugins["majority"]
    foreign = Plugin("loud", own.card, "strangers.loud", "loud-models")
    monkeypatch.setattr(registry, "models", lambda: Shelf("model", {"majority": own, "loud": foreign}, ()))
    lines = invoke("list", "models").stdout.splitlines()
    assert any(line.startswith("loud") and "loud-models" in line for line in lines)
    assert any(line.startswith("majority") and "mer-bench" in line for line in lines)


def test_an_empty_shelf(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "models", lambda: Shelf("model", MappingProxyType({}), ()))
    result = invoke("list", "models")
    assert (result.exit_code, result.stdout) == (0, "no models are installed\n")


def test_listing_models_is_fast_and_imports_no_torch() -> None:
    program = (
        "import atexit, resource, sys\n"
        "def tell():\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    heavy = [name for name in ('torch', 'sklearn', 'optuna', 'torch_geometric') if name in sys.modules]\n"
        "    print(heavy, used.ru_utime + used.ru_stime, file=sys.stderr)\n"
        "atexit.register(tell)\n"
        "from mer_bench.cli import main; main()"
    )
    seconds = []
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-c", program, "list", "models"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        )
        heavy, _, used = result.stderr.strip().rpartition(" ")
        assert heavy == "[]"
        seconds.append(float(used))
    # Time of the processor, which other work on the machine does not stretch.
    assert min(seconds) < 0.3
