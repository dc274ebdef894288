"""`mer-bench score`: from a template to a record, and what is said where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mer_bench.records import Record
from tests.cli.conftest import Invoke
from tests.conftest import ShelfWriter
from tests.external.chat import add_chats


@pytest.fixture
def chat(shelves: ShelfWriter, invoke: Invoke, tmp_path: Path) -> Invoke:
    """The command line, where `chat` is a dataset."""
    add_chats(shelves)
    return invoke


ASKED = ("score", "answers.csv", "--dataset", "chat", "--name", "my-llm", "--modalities", "text")


def test_from_a_template_to_a_record(chat: Invoke, tmp_path: Path) -> None:
    said = chat("score", "--dataset", "chat", "--template", "answers.csv")
    assert said.exit_code == 0
    assert said.stdout == (
        "11 ids of the test split of chat/official; fill in label, or a score for each class\ntemplate: answers.csv\n"
    )
    file = tmp_path / "answers.csv"
    file.write_text(file.read_text().replace(",,,,", ",glad,,,"))
    said = chat(*ASKED, "--selection", "best of [bold]three[/bold]", "--source", "<b>arXiv</b> 1", "--out", "out")
    assert said.exit_code == 0, said.stderr
    (record,) = (tmp_path / "out" / "chat" / "my-llm").glob("*.json")
    assert said.stdout.endswith(f"record: {record.relative_to(tmp_path)}\n")
    assert "my-llm on chat/external, mood, text, seed 0, test: 11 utterances" in said.stdout
    assert "selection, as stated  best of [bold]three[/bold]" in said.stdout
    assert "source, as stated     <b>arXiv</b> 1" in said.stdout
    assert "dev" not in said.stdout.split("selection")[0]
    assert "my-llm on chat found not one test utterance of calm, sad (F1 = 0)." in said.stderr


def test_json(chat: Invoke, tmp_path: Path) -> None:
    said = chat("score", "--dataset", "chat", "--template", "answers.csv", "--json")
    assert json.loads(said.stdout) == {"file": "answers.csv", "utterances": 11, "classes": ["calm", "glad", "sad"]}
    file = tmp_path / "answers.csv"
    header, *rows = file.read_text().split()
    file.write_text("\n".join([f"{header},why", *(row.replace(",,,,", ",2,,,,because") for row in rows)]))
    said = chat(*ASKED, "--selection", "zero-shot", "--json")
    assert said.exit_code == 0, said.stderr
    assert Record.model_validate(json.loads(said.stdout)).kind == "external"
    assert "columns that were not read: why" in said.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("score", "--dataset", "chat"), "no file of predictions was named. Give one, or write one to fill in"),
        (("score", "answers.csv", "--dataset", "chat"), "--name is missing"),
        (ASKED, "--selection is missing: how were model, prompt or epoch chosen?"),
        ((*ASKED, "--template", "answers.csv"), "--template writes a file to fill in, and answers.csv is one to score"),
        ((*ASKED, "--selection", "x"), "answers.csv is not there."),
        (
            (*ASKED[:-2], "--selection", "x"),
            "say which modalities my-llm was given, of text, audio (--modalities text)",
        ),
        (("score", "--template", "t.csv"), "missing option '--dataset'"),
        (("score", "--dataset", "chat", "--template", "t.doc"), "the name of t.doc does not say what it is"),
    ],
)
def test_a_wrong_request_is_one_sentence(words: tuple[str, ...], says: str, chat: Invoke) -> None:
    said = chat(*words)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert says in said.stderr
    assert len(said.stderr.splitlines()) == 1
