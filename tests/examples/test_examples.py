"""The examples: the model passes the kit, the dataset is imported and trained on, published settings are right."""

from __future__ import annotations

import csv
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mer_bench import registry, runner
from mer_bench.api import Batch, InputSpec
from mer_bench.cli import app
from mer_bench.records import read_record
from mer_bench.testing import MODEL_CHECKS, run_check

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PUBLISHED = sorted((EXAMPLES / "published").glob("*.toml"))


def invoke(*words: str) -> str:
    said = CliRunner().invoke(app, list(words))
    assert said.exit_code == 0, said.output
    return said.output


class TestModel:
    @pytest.fixture
    def fading(self, add_plugin: Callable[[Path], tuple[str, ...]]) -> str:
        (name,) = add_plugin(EXAMPLES / "fading.py")
        return name

    @pytest.mark.parametrize("check", MODEL_CHECKS)
    def test_it_passes_the_kit(self, fading: str, check: str) -> None:
        result = run_check(fading, check)
        assert result.status != "failed", result.reason

    def test_its_memory_is_the_formula_of_its_docstring(self, fading: str) -> None:
        spec = InputSpec(widths={"text": 3}, classes=("a", "b"), speakers=2)
        model = registry.load_model(fading).model_class(spec, registry.settings_class(fading)())
        rates = torch.tensor([0.3, 1.7])
        with torch.no_grad():
            model.log_rate.copy_(rates.log())
        speakers = torch.tensor([[0, 1, 0, 0, 0]])
        mask = torch.tensor([[True, True, True, True, False]])
        batch = Batch(
            features={"text": torch.zeros(1, 5, 3)},
            present={"text": mask},
            mask=mask,
            speakers=speakers,
            dialogues=torch.tensor([0]),
            lengths=torch.tensor([4]),
        )
        found = model._weights(batch, model.log_rate)[0].detach().numpy()
        for turn in range(4):
            weights = np.array(
                [np.exp(-rates[int(speakers[0, s] != speakers[0, turn])].item() * (turn - s)) for s in range(turn)]
            )
            expected = np.zeros(5)
            expected[:turn] = weights / weights.sum() if turn else 0
            np.testing.assert_allclose(found[turn], expected, rtol=1e-5)


class TestDataset:
    def test_it_is_imported_and_a_model_of_ones_own_is_trained_on_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("COLUMNS", "200")
        name = "synthetic-kitchen"
        invoke("data", "import", name, "--from", str(EXAMPLES / name))
        assert "made-up dialogues, never in a table with real ones" in invoke("info", name)
        plugin = ["--plugin", str(EXAMPLES / "fading.py"), "--model", "fading"]
        invoke(
            "run", *plugin, "--dataset", name, "--set", "epochs=2", "--threads", "1", "--out", str(tmp_path / "runs")
        )
        (file,) = (tmp_path / "runs").rglob("*.json")
        record = read_record(file)
        assert record.synthetic
        assert record.modalities == ("text", "audio")
        assert record.test is not None
        assert record.test.utterances == 18
        registry.remove_plugin(EXAMPLES / "fading.py")

    def test_its_name_its_card_and_its_summary_say_that_it_is_made_up(self) -> None:
        card = tomllib.loads((EXAMPLES / "synthetic-kitchen" / "card.toml").read_text())
        assert card["synthetic"] is True
        assert "synthetic" in card["title"]
        assert "made-up" in card["summary"]

    def test_the_array_has_a_row_for_each_utterance(self) -> None:
        folder = EXAMPLES / "synthetic-kitchen"
        dialogues = [json.loads(line) for line in (folder / "dialogues.jsonl").read_text().splitlines()]
        assert len(np.load(folder / "audio.npy")) == sum(len(dialogue["utterances"]) for dialogue in dialogues)


def told(file: Path) -> str:
    """The comment at the top of a settings file, in one line."""
    lines = file.read_text().split("\n\n")[0].splitlines()
    return re.sub(r"\s+", " ", " ".join(line.lstrip("# ").rstrip("\\") for line in lines))


def command(file: Path) -> list[str]:
    """The words of its `mer-bench run`."""
    return shlex.split("mer-bench run" + told(file).split("mer-bench run")[1])


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
class TestPublished:
    def test_the_settings_are_those_of_the_card(self, file: Path) -> None:
        model, dataset = file.stem.split("-")
        published = registry.models().find(model).card.published
        assert tomllib.loads(file.read_text()) == {**published.get("default", {}), **published[dataset]}

    def test_the_command_and_the_settings_are_ones_that_a_run_takes(self, file: Path) -> None:
        words = command(file)
        assert Path(option(words, "--settings")) == Path("examples/published") / file.name
        modalities = tuple(option(words, "--modalities").split(",")) if "--modalities" in words else None
        plan = runner.plan(
            runner.RunRequest(
                option(words, "--model"),
                option(words, "--dataset"),
                features=option(words, "--features"),
                modalities=modalities,
                settings=runner.read_settings_file(file),
            )
        )
        assert file.stem == f"{plan.model}-{plan.dataset}"
        for name, value in runner.read_settings_file(file).items():
            settled = getattr(plan.settings, name, None) if hasattr(plan.settings, name) else None
            assert value in (settled, getattr(plan.training, name, None)), name

    def test_the_figures_at_its_top_are_published_ones(self, file: Path) -> None:
        name, dataset = file.stem.split("-")
        text = told(file)
        model = text.split(" on ")[0]
        assert registry.models().find(name).card.title == model
        with (files("mer_bench.leaderboard.published") / f"{dataset}.csv").open(encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["model"] == model]
        figures = re.findall(r"(weighted F1|accuracy) (\d\d\.\d\d)", text)
        assert figures[0][0] == "weighted F1"
        features = text.split("Features there: ")[1]
        for metric, value in figures:
            found = [row for row in rows if row["metric"] == metric.lower().replace(" ", "_") and row["value"] == value]
            assert any(features.startswith(f"{row['features']}.") for row in found), (metric, value)
            # What the header says of the rule is what was read in the public code, or that it is unknown.
            rules = {row["selection"] for row in found}
            assert rules & {"test" if "best test score" in text else "dev" if "on dev;" in text else "unknown"}


def test_every_published_table_of_a_card_has_a_file_or_no_figure() -> None:
    """A model that gains settings of its paper, or a figure, gains a file."""
    missing = []
    for name, plugin in registry.models().plugins.items():
        for dataset in plugin.card.published:
            with (files("mer_bench.leaderboard.published") / f"{dataset}.csv").open(encoding="utf-8") as lines:
                figures = [row for row in csv.DictReader(lines) if row["model"] == plugin.card.title and row["value"]]
            if figures and not (EXAMPLES / "published" / f"{name}-{dataset}.toml").is_file():
                missing.append(f"{name}-{dataset}")
    assert missing == []


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the example's dialogues."""
    root = tmp_path_factory.mktemp("data")
    name = "synthetic-kitchen"
    invoke("data", "import", name, "--from", str(EXAMPLES / name), "--data-root", str(root))
    return root


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
def test_a_run_with_these_settings_goes_through(file: Path, kitchen: Path, tmp_path: Path) -> None:
    """On few dialogues, for one epoch: that such a network is built, trained and scored."""
    settings = {**runner.read_settings_file(file), "epochs": 1}
    model, _ = file.stem.split("-")
    record = runner.run(
        runner.RunRequest(model, "synthetic-kitchen", settings=settings, out=tmp_path, data_root=kitchen, threads=1)
    )
    assert record.status == "done"
    assert record.training["optimizer"] == settings.get("optimizer", "adamw")
