"""Settings written as TOML, read back as they were."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mer_bench.errors import RequestError
from mer_bench.request import read_settings_file
from mer_bench.tuning.settings_file import settings_text

texts = some.text(some.characters(exclude_categories=["Cs"]), max_size=12)
plain = some.one_of(
    some.booleans(), some.integers(-(2**63), 2**63 - 1), some.floats(allow_nan=False, allow_infinity=False), texts
)


@given(some.dictionaries(texts, some.one_of(plain, some.lists(plain, max_size=3)), max_size=5), some.lists(texts))
def test_what_is_written_is_read(settings: dict[str, Any], comments: list[str]) -> None:
    printable = ["".join(letter for letter in each if letter.isprintable()) for each in comments]
    read = tomllib.loads(settings_text(settings, printable))
    assert read == settings
    assert [type(value) for value in read.values()] == [type(value) for value in settings.values()]


def test_names_of_an_inner_model_are_quoted_so_that_the_file_stays_flat(tmp_path: Path) -> None:
    settings = {"rate": 0.5, "inner.hidden_dim": 64, "inner.inner.name": 'a "b"'}
    (tmp_path / "s.toml").write_text(settings_text(settings, ["of the study\n= 3"]), encoding="utf-8")
    assert read_settings_file(tmp_path / "s.toml") == settings
    assert settings_text(settings).splitlines()[1] == '"inner.hidden_dim" = 64'


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), {"a": 1}])
def test_what_toml_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(RequestError, match=r"width is .*, which has no form in a settings file"):
        settings_text({"width": value})
