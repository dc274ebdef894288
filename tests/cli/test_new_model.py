"""`mer-bench new model`, every command on a model that is not installed, and the tutorial word for word."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench import atomic, registry
from mer_bench.errors import RequestError
from mer_bench.templates.writing import LONGEST_NAME, check_model_name, write_model
from tests.conftest import write_plugin

from .conftest import Invoke

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(registry.__file__).parent / "templates"
FORMS: tuple[list[str], ...] = (["--file"], [], ["--package"])
WRITTEN = {
    "--file": ["my_model.py"],
    "": [f"my_model/{name}" for name in ("README.md", "__init__.py", "card.toml", "config.py", "model.py")],
    "--package": [
        *("my-model/README.md", "my-model/pyproject.toml", "my-model/src/my_model_shelf/__init__.py"),
        *(
            f"my-model/src/my_model_shelf/my_model/{name}"
            for name in ("README.md", "__init__.py", "card.toml", "config.py", "model.py")
        ),
        *("my-model/tests/test_models.py", "my-model/tox.ini"),
    ],
}


def files_below(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_what_is_written_passes_the_kit_at_once(invoke: Invoke, tmp_path: Path, form: list[str]) -> None:
    written = invoke("new", "model", "my-model", *form)
    assert written.exit_code == 0
    assert files_below(tmp_path) == WRITTEN["".join(form)]
    assert "your" not in "".join((tmp_path / file).read_text().lower() for file in files_below(tmp_path)).replace(
        "your editor", ""
    )
    command = next(line for line in written.stdout.splitlines() if line.startswith("mer-bench check"))
    checked = invoke(*shlex.split(command)[1:], "--json")
    assert checked.exit_code == 0, checked.stderr
    told = json.loads(checked.stdout)
    (plugin,) = told.get("plugins", [told])
    assert (plugin["name"], plugin["passed"]) == ("my-model", True)
    excused = {each["name"] for each in plugin["checks"] if each["status"] == "excused"}
    assert excused == ({"causal", "folder"} if form == ["--file"] else {"causal"})
    assert set(registry.models().plugins) == set(registry.installed_models().plugins)  # gone with the command


def test_every_command_takes_a_model_that_is_not_installed(invoke: Invoke, tmp_path: Path, synthetic: Path) -> None:
    invoke("new", "model", "my-model", "--file")
    invoke("new", "model", "other")
    both = ("--plugin", "my_model.py", "--plugin", "other")
    listed = json.loads(invoke("list", "models", *both, "--json").stdout)
    assert {"my-model": "my_model.py", "other": "other"}.items() <= {
        each["name"]: each["distribution"] for each in listed["models"]
    }.items()
    assert "width" in invoke("info", "my-model", *both).stdout
    assert "width" in invoke("info", "my-model", "--space", *both).stdout
    assert invoke("check", "other", *both).exit_code == 0
    run = ["run", "--model", "my-model", "--dataset", "meld-synthetic", "--set", "epochs=1"]
    run += ["--data-root", str(synthetic)]
    ran = invoke(*run, *both)
    assert ran.exit_code == 0, ran.stderr
    (file,) = (tmp_path / "runs").rglob("*.json")
    assert json.loads(file.read_text())["model_code"]["origin"] == "file"
    gone = invoke(*run)
    assert gone.exit_code == 2
    assert "no model is called 'my-model'" in gone.stderr


def test_listing_a_file_imports_no_torch_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_model("my-model", "file", tmp_path)
    question = (
        "import sys; from mer_bench import registry; registry.add_plugin('my_model.py'); registry.models(); "
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", question], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.strip() == "[]"
    assert files_below(tmp_path) == ["my_model.py"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["My_Model"], "a model's name starts with a letter and is made of lower-case letters, digits and hyphens"),
        (["3d"], "starts with a letter"),
        (["../up"], "starts with a letter"),
        (["a" * (LONGEST_NAME + 1)], f"at most {LONGEST_NAME} in all"),
        (["cmath"], "mer_bench_models.cmath is a model called cmath; choose another name"),
        (["batch"], "'batch' stands for something else in Python code; choose another name, as batch-net"),
        (["input-spec"], "'input-spec' stands for something else"),
        (["lambda"], "'lambda' stands for something else"),
        (["new", "--file", "--package"], "--file is one file and --package a whole package; give one of the two"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(
    invoke: Invoke, tmp_path: Path, words: list[str], sentence: str
) -> None:
    result = invoke("new", "model", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_nothing_is_overwritten(invoke: Invoke, tmp_path: Path, form: list[str]) -> None:
    invoke("new", "model", "my-model", *form)
    before = {file: (tmp_path / file).read_bytes() for file in files_below(tmp_path)}
    result = invoke("new", "model", "my-model", *form)
    assert result.exit_code == 2
    assert "is there already; choose another name, or another place with --folder" in result.stderr
    assert {file: (tmp_path / file).read_bytes() for file in files_below(tmp_path)} == before
    assert invoke("new", "model", "my-model", *form, "--folder", "deep/er").exit_code == 0


def test_nothing_half_written_is_left(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        if path.name == "model.py":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "flush_to_disk", full)
    result = invoke("new", "model", "my-model")
    assert result.exit_code == 1
    assert "cannot write my_model: the disk is full" in result.stderr
    assert list(tmp_path.iterdir()) == []


BLOCK = """\
# /// mer-bench
# title = "S"
# summary = "s"
# entry = "S"
# config = "S"
# modalities = ["text"]
# ///
"""
HOSTILE = {
    "syntax.py": BLOCK + "def (:\n",
    "exits.py": BLOCK + "raise SystemExit(0)\n",
    "missing.py": BLOCK,
    "plain.py": "x = 1\n",
    "toml.py": "# /// mer-bench\n# title = ?\n# ///\n",
    "folder/notes.txt": "",
}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("syntax.py", "SyntaxError: invalid syntax (syntax.py, line 8)"),
        ("exits.py", "SystemExit: 0 (exits.py, line 8)"),
        ("missing.py", "missing.py has no S, which its card names as S"),
        ("plain.py", "plain.py has no card"),
        ("toml.py", "the card in toml.py (line 1) is not valid TOML: Invalid value (at line 2"),
        ("folder", "folder holds no plugin"),
        ("gone.py", "there is no plugin at gone.py"),
    ],
)
def test_a_broken_plugin_is_one_sentence_and_debug_shows_more(
    invoke: Invoke, tmp_path: Path, path: str, told: str
) -> None:
    write_plugin(tmp_path, HOSTILE)
    words = ("run", "--plugin", path, "--model", Path(path).stem, "--dataset", "meld-synthetic")
    result = invoke(*words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" in invoke(*words, "--debug").stderr
    checked = invoke("check", path)
    assert checked.exit_code in (1, 2)
    assert told in " ".join((checked.stdout + checked.stderr).split())


def test_a_shelf_is_checked_as_a_whole(invoke: Invoke, tmp_path: Path) -> None:
    invoke("new", "model", "sound", "--folder", "shelf")
    write_plugin(tmp_path / "shelf" / "broken", {"card.toml": "title = 3", "__init__.py": ""})
    result = invoke("check", "shelf")
    assert result.exit_code == 1
    assert "sound passed" in result.stdout
    assert "1 of the 2 plugins of shelf failed: broken (card)" in result.stderr
    told = json.loads(invoke("check", "shelf", "--json").stdout)
    assert [(each["name"], each["passed"]) for each in told["plugins"]] == [("sound", True), ("broken", False)]
    assert told["passed"] is False


# The templates ----------------------------------------------------------------------------------


def test_the_file_and_the_folder_are_the_same_model() -> None:
    def classes(*files: Path) -> dict[str, str]:
        nodes = [node for file in files for node in ast.parse(file.read_text()).body]
        return {node.name: ast.unparse(node) for node in nodes if isinstance(node, (ast.ClassDef, ast.FunctionDef))}

    folder = TEMPLATES / "shelf" / "your_model"
    assert classes(TEMPLATES / "your_model.py") == classes(folder / "config.py", folder / "model.py")
    one, other = (registry._read_plugin(path).card.model_dump() for path in (TEMPLATES / "your_model.py", folder))
    assert {key for key in one if one[key] != other[key]} == {"entry", "config"}


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed here")
@pytest.mark.parametrize("name", ["a", "my-model", "a-rather-long-name-of-a-model"])
def test_what_is_written_is_well_formed_under_any_name(tmp_path: Path, name: str) -> None:
    for form in ("file", "folder", "package"):
        write_model(name, form, tmp_path / form)
    for command in (["check", "--select=E,F,W", "--line-length=120"], ["format", "--check", "--line-length=120"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "--isolated", "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout


@given(st.text(st.sampled_from("abc01-_A./ "), max_size=8))
def test_a_name_is_refused_or_gives_a_model_of_that_name(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("place")
    try:
        check_model_name(name)
    except RequestError:
        return
    plugin, _ = write_model(name, "file", folder)
    assert registry.add_plugin(plugin) == (name,)
    registry.remove_plugin(plugin)


# The tutorial -----------------------------------------------------------------------------------


def blocks(kind: str) -> list[str]:
    text = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_test_cases_of_the_tutorial_pass_on_a_new_model(tmp_path: Path) -> None:
    """What else is on the page is run from top to bottom with all other pages."""
    write_model("my-model", "file", tmp_path)
    (test,) = [block for block in blocks("python") if "import pytest" in block]
    (tmp_path / "test_mine.py").write_text(test)
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert tested.returncode == 0, tested.stdout
