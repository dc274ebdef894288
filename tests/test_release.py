"""What a release says of itself agrees: versions, extras, pins, citation, templates."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mer_bench

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_CONTRIBUTORS = {"test", "speed", "dev", "docs"}
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def loaded(place: str) -> Any:
    return yaml.safe_load((ROOT / place).read_text(encoding="utf-8"))


def test_the_extra_all_is_every_feature() -> None:
    (everything,) = EXTRAS["all"]
    named = re.fullmatch(r"mer-bench\[(.*)\]", everything)
    assert named is not None
    assert sorted(named[1].split(",")) == sorted(set(EXTRAS) - FOR_CONTRIBUTORS - {"all"})
    assert "mer-bench[all]" in EXTRAS["test"]


def test_the_citation_is_of_this_version_and_names_nobody() -> None:
    citation = loaded("CITATION.cff")
    # Required by the Citation File Format 1.2.0; an author without `name` would be a person.
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["authors"] == [{"name": "The mer-bench authors"}]
    assert citation["version"] == mer_bench.__version__
    assert citation["license"] == PROJECT["license"]
    known = {"cff-version", "message", "type", "title", "abstract", "authors", "version", "license", "keywords"}
    assert set(citation) <= known


def test_the_change_log_has_this_version_on_top() -> None:
    versions = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == mer_bench.__version__
    assert len(versions) == len(set(versions))


def test_pre_commit_has_the_versions_that_ci_tests_with() -> None:
    hooks = [hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {"ruff-check", "ruff-format", "mypy"} <= {hook["id"] for hook in hooks}
    pinned = {pin for hook in hooks for pin in hook.get("additional_dependencies", [])}
    assert f"ruff=={PINS['ruff']}" in pinned
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pinned)
    # A hook brings its own pinned tool, or is that of the environment.
    assert all(hook.get("additional_dependencies") or hook["language"] == "system" for hook in hooks)


def test_the_workflow_calls_what_a_contributor_calls() -> None:
    workflow = loaded(".github/workflows/ci.yml")
    steps = workflow["jobs"]["run"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("name", ["fault", "new_model", "new_dataset", "record"])
def test_a_template_of_an_issue_is_a_form(name: str) -> None:
    form = loaded(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    inputs = [part for part in form["body"] if part["type"] != "markdown"]
    names = [part["id"] for part in inputs]
    assert len(set(names)) == len(names)
    for part in inputs:
        assert part["type"] in ("input", "textarea", "checkboxes")
        assert part["attributes"]["label"]
    assert any(part.get("validations", {}).get("required") for part in inputs)


def test_python_versions_are_the_same_everywhere() -> None:
    stated = [text.rsplit(" ", 1)[1] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert PROJECT["requires-python"] == f">={stated[0]},<3.{int(stated[-1].split('.')[1]) + 1}"
    assert f"Python {stated[0]} to {stated[-1]}" in (ROOT / "README.md").read_text()


def commands_of_contributing() -> list[str]:
    block = re.search(r"^```sh\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    return [line.split("#")[0].strip() for line in block[1].splitlines()]


def test_a_contributor_needs_ten_commands() -> None:
    commands = commands_of_contributing()
    assert len(commands) == 10
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("python -m pip install -q -c constraints.txt -e '.[dev]'", "ruff check .", "mypy"):
        assert command in script
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert {"coverage", "speed", "lint", "types"} <= set(environments)
