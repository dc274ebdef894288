"""`mer-bench info`: cards, settings with ranges and defaults, the search space."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest

from mer_bench import registry
from mer_bench.cli.info import describe, legal_text, meanings, space_text
from mer_bench.config import FILLED_IN, Field, Settings, TrainerSettings, Tune, WrapperSettings
from mer_bench.data.preparation import open_or_prepare, resolve

from .conftest import Invoke


class Example(Settings):
    """Settings of an example.

    Attributes:
        depth: Layers, from the input
            to the output.
        left, right: Width of a side.
        mode: What is done: `a` or `b`.

    Depth: this is no field's meaning.
    """

    depth: Annotated[int, Field(ge=1, le=8), Tune(step=1)] = 2
    left: Annotated[float, Field(gt=0, lt=1), Tune(low=1e-3, high=0.1, log=True)] = 0.5
    right: float = 1.0
    mode: Annotated[Literal["a", "b"], Tune()] = "a"
    deep: Annotated[bool, Tune(when={"mode": "a"})] = False
    size: Annotated[int, Tune(choices=(8, 16))] = 8
    said: Annotated[int, Field(description="In the field itself.")] = 0


def test_meanings_come_from_the_docstring() -> None:
    assert meanings(Example) == {
        "depth": "Layers, from the input to the output.",
        "left": "Width of a side.",
        "right": "Width of a side.",
        "mode": "What is done: `a` or `b`.",
    }
    assert describe(Example)["said"]["meaning"] == "In the field itself."
    assert set(meanings(TrainerSettings)) == set(TrainerSettings.model_fields)


def test_legal_values_and_search_spaces_in_words() -> None:
    fields = Example.model_fields
    assert [legal_text(fields[name]) for name in ("depth", "left", "mode", "deep")] == [
        "a whole number in [1, 8]",
        "(0, 1)",
        "a, b",
        "true or false",
    ]
    spaces = {name: space_text(field, tune) for name, (field, tune) in Example.tunables().items()}
    assert spaces == {
        "depth": "[1, 8] in steps of 1",
        "left": "[0.001, 0.1] logarithmic",
        "mode": "a, b",
        "deep": "true, false",
        "size": "8, 16",
    }


@pytest.mark.parametrize("name", sorted(registry.models().plugins))
def test_every_model_shows_every_setting(invoke: Invoke, name: str) -> None:
    result = invoke("info", name)
    assert result.exit_code == 0
    kind = registry.settings_class(name)
    settings = set(kind.model_fields) - (set(FILLED_IN) if issubclass(kind, WrapperSettings) else set())
    for setting in (*settings, *TrainerSettings.model_fields):
        assert f"\n{setting} " in result.stdout
    answer = json.loads(invoke("info", name, "--json").stdout)
    assert answer["title"] == registry.models().plugins[name].card.title
    assert set(answer["fields"]["settings"]) == settings
    assert answer["fields"]["training"]["batch_size"]["default"] == 32
    space = invoke("info", name, "--space")
    assert "[0.0001, 0.01] logarithmic" in space.stdout


def test_wrapper_says_where_the_settings_of_the_model_inside_are(invoke: Invoke) -> None:
    shown = invoke("info", "modality-dropout").stdout
    assert "inner_settings" not in shown
    assert "inner.KEY" in shown
    assert "mer-bench info latefusion" in shown


@pytest.mark.parametrize("name", sorted(registry.datasets().plugins))
def test_every_dataset_and_feature_set_is_shown(invoke: Invoke, name: str) -> None:
    card = registry.datasets().plugins[name].card
    result = invoke("info", name)
    assert result.exit_code == 0
    assert card.licence in " ".join(result.stdout.split())
    assert json.loads(invoke("info", name, "--json").stdout)["licence"] == card.licence
    for key, features in card.feature_sets.items():
        assert f"{name}/{key}" in result.stdout
        detail = invoke("info", f"{name}/{key}")
        assert detail.exit_code == 0
        for source in features.sources:
            assert source in detail.stdout
        assert json.loads(invoke("info", f"{name}/{key}", "--json").stdout)["id"] == f"{name}/{key}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["majorty"], "no model or dataset is called 'majorty'. Did you mean 'majority'?"),
        (["meld-synthetc"], "Did you mean 'meld-synthetic'"),
        (["meld/transcript"], "no feature set is called 'meld/transcript'. Did you mean 'meld/transcripts'"),
        (["mled/transcripts"], "no dataset is called 'mled'. Did you mean 'meld'?"),
        (["majority", "--plot", "x.png"], "--plot is for datasets, but majority is a model"),
        (["majority", "--labels", "emotion"], "--labels is for datasets, but majority is a model"),
        (["meld", "--labels", "emotoin"], "no label set of meld is called 'emotoin'. Did you mean 'emotion'?"),
        (["meld", "--fold", "2"], "the protocol meld/official has no folds, but fold 2 was asked for"),
        (["meld/mmgcn", "--plot", "x.png"], "Prepare it with: mer-bench data prepare meld/mmgcn"),
        (["meld", "--plot", "x.gif"], "a picture ends in .png, .svg or .pdf, but --plot names x.gif"),
        (["meld", "--space"], "--space shows a model's search space, but meld is no model"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(invoke: Invoke, words: list[str], says: str) -> None:
    result = invoke("info", *words)
    assert result.exit_code == 2
    assert says in result.stderr


def test_what_is_prepared_is_shown_in_numbers(invoke: Invoke, synthetic: Path) -> None:
    words = ("info", "meld-synthetic", "--data-root", str(synthetic))
    result = invoke(*words)
    assert result.exit_code == 0
    assert "Prepared on this machine: meld-synthetic/default" in result.stdout
    answer = json.loads(invoke(*words, "--json").stdout)["prepared"]
    manifest = open_or_prepare(resolve("meld-synthetic"), synthetic).manifest
    assert (answer["features"], answer["protocol"], answer["fold"]) == ("default", manifest.protocol, None)
    for split, count in manifest.counts.items():
        told = answer["splits"][split]
        assert (told["dialogues"], told["utterances"], told["labelled"]) == tuple(count.model_dump().values())
        assert {name: each["count"] for name, each in told["labels"].items()} == manifest.class_histogram[split]
        assert sum(each["share"] for each in told["labels"].values()) == pytest.approx(1)
        lengths = {int(number): times for number, times in told["lengths"]["counts"].items()}
        assert sum(lengths.values()) == count.dialogues
        assert sum(number * times for number, times in lengths.items()) == count.utterances
        for modality, missing in told["missing"].items():
            assert missing["count"] == manifest.missing[modality][split]
            assert f"{100 * missing['share']:.2f}" in result.stdout
        for name, number in manifest.class_histogram[split].items():
            row = next(line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
            assert str(number) in row.split()
    one = json.loads(invoke("info", "meld-synthetic/default", *words[2:], "--json").stdout)
    assert one["prepared"] == answer


def test_nothing_is_prepared(invoke: Invoke) -> None:
    assert json.loads(invoke("info", "meld", "--json").stdout)["prepared"] is None
    assert "Prepared on this machine" not in invoke("info", "meld").stdout


def test_a_picture_of_what_is_prepared(invoke: Invoke, synthetic: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    words = ("info", "meld-synthetic/default", "--data-root", str(synthetic), "--plot")
    result = invoke(*words, str(tmp_path))
    assert result.exit_code == 0
    picture = tmp_path / "meld-synthetic-default.png"
    assert result.stdout.rstrip().endswith(f"drawn: {picture}")
    again = invoke(*words, str(tmp_path / "again.png"), "--json")
    assert json.loads(again.stdout)["prepared"]
    assert "drawn: " in again.stderr
    assert (tmp_path / "again.png").read_bytes() == picture.read_bytes()


def test_a_damaged_store_is_named(invoke: Invoke, synthetic: Path, tmp_path: Path) -> None:
    shutil.copytree(synthetic, tmp_path / "copy")
    (manifest,) = (tmp_path / "copy").rglob("manifest.json")
    manifest.write_text("{}")
    result = invoke("info", "meld-synthetic", "--data-root", str(tmp_path / "copy"))
    assert result.exit_code == 2
    assert str(manifest.parent) in result.stderr.replace("\n", "")


def test_without_a_store_no_array_library_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from mer_bench.cli import app\n"
        "try: app(['info', 'meld'])\n"
        "finally: print([name for name in ('torch', 'numpy', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    environment = {**os.environ, "MER_BENCH_DATA": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert found.stdout.splitlines()[-1] == "[]"
    # With a store in view numpy is imported, and no more.
    open_or_prepare(resolve("meld-synthetic"), tmp_path)
    code = code.replace("'meld'", "'meld-synthetic'")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "Prepared on this machine" in found.stdout
    assert found.stdout.splitlines()[-1] == "['numpy']"
