"""`mer-bench run`: requests in, scores, records and warnings out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mer_bench import registry, runner
from mer_bench.cli.run import mean, spread
from mer_bench.errors import DivergedError, RunError
from mer_bench.records import Record, read_record
from mer_bench.runner import Listener, RunRequest

from .conftest import Invoke


@pytest.fixture
def words(synthetic: Path) -> tuple[str, ...]:
    return ("run", "--model", "majority", "--dataset", "meld-synthetic", "--data-root", str(synthetic))


@pytest.fixture(scope="module")
def record(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A record of a real run."""
    request = RunRequest("majority", "meld-synthetic", data_root=synthetic, out=tmp_path_factory.mktemp("runs"))
    return runner.run(request)


class Requests(list[RunRequest]):
    """Takes the place of `runner.run`: notes each request and answers with one record."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record
        self.diverging: set[int] = set()

    def run(self, request: RunRequest, listener: Listener) -> Record:
        self.append(request)
        if request.seed in self.diverging:
            raise DivergedError(f"the loss of seed {request.seed} became NaN.")
        assert self.record.test is not None
        test = self.record.test.model_copy(update={"weighted_f1": 0.1 * (1 + request.seed)})
        return self.record.model_copy(update={"seed": request.seed, "test": test})


@pytest.fixture
def requests(record: Record, monkeypatch: pytest.MonkeyPatch) -> Requests:
    found = Requests(record)
    monkeypatch.setattr(runner, "run", found.run)
    return found


def test_a_run_ends_with_scores_a_warning_and_a_record(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(*words, "--out", "results")
    assert result.exit_code == 0
    where = next(line for line in result.stdout.splitlines() if line.startswith("record: ")).removeprefix("record: ")
    assert where.startswith("results/meld-synthetic/majority/")
    record = read_record(tmp_path / where)
    assert record.test is not None
    for title, score in (
        ("Weighted F1", record.test.weighted_f1),
        ("Accuracy", record.test.accuracy),
        ("Macro F1", record.test.macro_f1),
        ("UAR", record.test.uar),
    ):
        line = next(line for line in result.stdout.splitlines() if line.startswith(title))
        assert line.split()[-1] == f"{100 * score:.2f}"
    for name, each in record.test.classes.items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(name))
        assert line.split()[-2:] == [f"{100 * each.f1:.2f}", str(each.support)]
    lost = [name for name, each in record.test.classes.items() if each.f1 == 0]
    assert f"found not one test utterance of {', '.join(lost)} (F1 = 0)" in result.stderr
    assert result.stdout.count("meld-synthetic") >= 3


def test_json_is_the_record_alone(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(*words, "--json")
    assert result.exit_code == 0
    answer = Record.model_validate(json.loads(result.stdout))
    assert read_record(next((tmp_path / "runs").rglob("*.json"))) == answer
    assert "fitted at one go" in result.stderr


def test_seeds_give_mean_spread_and_each(invoke: Invoke, words: tuple[str, ...], requests: Requests) -> None:
    result = invoke(*words, "--seeds", "3")
    assert [request.seed for request in requests] == [0, 1, 2]
    rows = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if len(line.split()) == 7}
    assert rows == {"0": "10.00", "1": "20.00", "2": "30.00", "mean": "20.00", "spread": "10.00"}
    assert result.stdout.count("record: ") == 3
    answer = json.loads(invoke(*words, "--seeds", "3", "--json").stdout)
    assert answer["seeds"] == [0, 1, 2]
    assert answer["test"]["weighted_f1"]["mean"] == pytest.approx(0.2)
    assert answer["test"]["weighted_f1"]["spread"] == pytest.approx(0.1)
    assert answer["test"]["weighted_f1"]["each"] == pytest.approx([0.1, 0.2, 0.3])
    assert len(answer["records"]) == 3


def test_one_of_several_seeds_has_no_spread(invoke: Invoke, words: tuple[str, ...], requests: Requests) -> None:
    result = invoke(*words, "--seeds", "1")
    assert result.exit_code == 0
    assert next(line for line in result.stdout.splitlines() if line.startswith("spread ")).split() == [
        "spread",
        *"------",
    ]


def test_a_seed_that_diverges_is_told_and_harms_no_other(
    invoke: Invoke, words: tuple[str, ...], requests: Requests
) -> None:
    requests.diverging = {1}
    result = invoke(*words, "--seeds", "3")
    assert result.exit_code == 1
    assert [request.seed for request in requests] == [0, 1, 2]
    assert "warning: seed 1 failed: the loss of seed 1 became NaN." in result.stderr
    assert result.stderr.endswith("mer-bench: 1 of 3 seeds failed (1): the loss of seed 1 became NaN.\n")
    assert next(line for line in result.stdout.splitlines() if line.startswith("mean")).split()[1] == "20.00"
    requests.diverging = {0, 1, 2}
    result = invoke(*words, "--seeds", "3", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


def test_one_run_that_diverges_is_told_once(invoke: Invoke, words: tuple[str, ...], requests: Requests) -> None:
    requests.diverging = {0}
    result = invoke(*words)
    assert (result.exit_code, result.stderr) == (1, "mer-bench: the loss of seed 0 became NaN.\n")


def test_the_options_become_the_request(
    invoke: Invoke, words: tuple[str, ...], requests: Requests, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('epochs = 7\nbatch_size = 8\noptimizer = "adam"\n')
    result = invoke(
        *words,
        *("--labels", "emotion", "--features", "meld-synthetic/default", "--protocol", "official"),
        *("--modalities", "audio, text", "--seed", "4", "--device", "cpu", "--threads", "2", "--out", "here"),
        *("--settings", "mine.toml", "--set", "batch_size=16", "--set", "class_weights=inverse", "--set", "epochs=9"),
    )
    assert result.exit_code == 0
    (request,) = requests
    assert (request.labels, request.features, request.protocol) == ("emotion", "meld-synthetic/default", "official")
    assert (request.modalities, request.seed, request.device, request.threads) == (("audio", "text"), 4, "cpu", 2)
    assert request.out == Path("here")
    assert request.settings == {"epochs": 9, "batch_size": 16, "optimizer": "adam", "class_weights": "inverse"}


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--model", "majorty"], "no model is called 'majorty'. Did you mean 'majority'? See: mer-bench list models"),
        (["--dataset", "meld-syntetic"], "no dataset is called 'meld-syntetic'. Did you mean 'meld-synthetic'"),
        (["--features", "defualt"], "Did you mean 'default'"),
        (["--labels", "emotoin"], "Did you mean 'emotion'"),
        (["--protocol", "offical"], "Did you mean 'official'"),
        (["--modalities", "text,adio"], "'adio'. Did you mean 'audio'?"),
        (["--modalities", "text,,audio"], "modalities are names with commas between them, as in text,audio"),
        (["--modalities", ""], "modalities are names with commas between them"),
        (["--modalities", "text,text"], "the modality 'text' stands twice in --modalities text,text"),
        (["--set", "batchsize=8"], "no setting is called 'batchsize'. Did you mean 'batch_size'?"),
        (["--set", "batchsize=8"], "mer-bench info majority (from --set batchsize=8)"),
        (["--set", "epochs=0"], "epochs must be a whole number in [1, 10000], but is 0 (from --set epochs=0)."),
        (["--set", "epochs=many"], "but is 'many' (from --set epochs=many)."),
        (["--set", "epochs"], "a setting is written key=value, but 'epochs' was given"),
        (["--set", "learning_rate=NaN"], "learning_rate must lie in (0, 1], but is 'NaN'"),
        (["--settings", "absent.toml"], "the settings file absent.toml cannot be read: No such file or directory."),
        (["--settings", "broken.toml"], "the settings file broken.toml is not valid TOML"),
        (["--settings", "nested.toml"], "should be flat, but has the table [model]"),
        (
            ["--settings", "wrong.toml"],
            "epochs must be a whole number in [1, 10000], but is 0 (from --settings wrong.toml)",
        ),
        (["--settings", "published"], "the card of majority holds no settings of its paper."),
        (["--device", "gpu"], "a device is auto, cpu, cuda or cuda:N, but 'gpu' was given."),
        (["--seed", "1", "--seeds", "2"], "--seed 1 is one run and --seeds 2 are several; give one of the two."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(
    invoke: Invoke, words: tuple[str, ...], tmp_path: Path, extra: list[str], says: str
) -> None:
    (tmp_path / "broken.toml").write_text("epochs = \n")
    (tmp_path / "nested.toml").write_text("[model]\nepochs = 1\n")
    (tmp_path / "wrong.toml").write_text("epochs = 0\n")
    before = sorted(tmp_path.iterdir())
    result = invoke(*words, *extra)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_the_papers_own_settings(
    invoke: Invoke, words: tuple[str, ...], requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = registry.models()
    own = shelf.plugins["majority"]
    card = own.card.model_copy(update={"published": {"meld-synthetic": {"batch_size": 4}}})
    changed = registry.Shelf("model", {"majority": registry.Plugin("majority", card, own.package, "x")}, ())
    monkeypatch.setattr(registry, "models", lambda: changed)
    assert invoke(*words, "--settings", "published", "--set", "epochs=2").exit_code == 0
    assert requests[0].settings == {"batch_size": 4, "epochs": 2}
    result = invoke("run", "--model", "majority", "--dataset", "meld", "--settings", "published")
    assert result.exit_code == 2
    assert "its paper's settings for meld-synthetic, not for meld" in result.stderr


def test_an_unwritable_folder_is_named_as_given(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    result = invoke(*words, "--out", "taken")
    assert result.exit_code == 1
    assert "cannot write records to taken: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_failing_model_is_a_failed_run(
    invoke: Invoke, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Record:
        raise RunError("majority failed: IndexError: no such row")

    monkeypatch.setattr(runner, "run", fail)
    result = invoke(*words, "--seeds", "3")
    assert (result.exit_code, result.stderr) == (1, "mer-bench: majority failed: IndexError: no such row\n")


def test_mean_and_spread_leave_out_what_is_not_there() -> None:
    assert mean([0.2, None, 0.4]) == pytest.approx(0.3)
    assert spread([0.2, None, 0.4]) == pytest.approx(0.1414, abs=1e-4)
    assert mean([None]) is None
    assert spread([0.2]) is None
