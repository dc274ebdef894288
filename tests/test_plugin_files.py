"""The checksum of a plugin's files: what changes it and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.errors import PluginError
from mer_bench.plugin_files import code_files, read_plugin_files
from tests.conftest import write_plugin

FILES = {
    "__init__.py": "",
    "card.toml": "title = 1",
    "model.py": "x = 1",
    "words.csv": "a,b",
    "parts/__init__.py": "",
    "parts/cell.py": "y = 2",
}


@pytest.mark.parametrize("changed", [*FILES, "new.py", "parts/table.bin"])
def test_every_file_of_the_code_counts(tmp_path: Path, changed: str) -> None:
    before = read_plugin_files(write_plugin(tmp_path / "gru", FILES)).sha256
    write_plugin(tmp_path / "gru", {changed: "z = 3"})
    assert read_plugin_files(tmp_path / "gru").sha256 != before


@pytest.mark.parametrize(
    "other",
    ["README.md", ".git/config", ".model.py.swp", "__pycache__/model.pyc", "runs/meld/gru/a.json", "notes/a.py"],
)
def test_what_is_no_code_does_not_count(tmp_path: Path, other: str) -> None:
    before = read_plugin_files(write_plugin(tmp_path / "gru", FILES))
    write_plugin(tmp_path / "gru", {other: "z = 3"})
    assert read_plugin_files(tmp_path / "gru") == before


def test_neither_the_place_nor_the_name_of_the_folder_counts(tmp_path: Path) -> None:
    here = read_plugin_files(write_plugin(tmp_path / "gru", FILES))
    shutil.copytree(tmp_path / "gru", tmp_path / "elsewhere" / "other")
    there = read_plugin_files(tmp_path / "elsewhere" / "other")
    assert there.sha256 == here.sha256
    assert there.package != here.package


def test_files_come_in_a_fixed_order(tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "gru", dict(reversed(FILES.items())))
    assert [file.relative_to(folder).as_posix() for file in code_files(folder)] == sorted(FILES)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"gone cannot be read: No such file"):
        read_plugin_files(tmp_path / "gone")


NAMES = st.from_regex(r"[a-z]{1,3}\.(py|csv)", fullmatch=True)
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=8), max_size=4)


@given(first=CONTENTS, second=CONTENTS)
def test_the_checksum_is_equal_exactly_where_names_and_bytes_are(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    checksums = []
    for files in (first, second):
        folder = tmp_path_factory.mktemp("plugin")
        for name, content in files.items():
            (folder / name).write_bytes(content)
        checksums.append(read_plugin_files(folder).sha256)
    assert (checksums[0] == checksums[1]) == (first == second)
