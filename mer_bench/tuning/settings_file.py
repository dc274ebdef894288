"""Settings as the flat TOML file that `run --settings` reads."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mer_bench.errors import RequestError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def settings_text(settings: Mapping[str, Any], comments: Iterable[str] = ()) -> str:
    """The text of such a file: comments, then one setting a line.

    A name with a dot in it, such as `inner.hidden_dim`, is quoted: bare it would be a table.

    Raises:
        RequestError: If a value has no form in TOML.
    """
    # A name of a study may hold anything, a new line too.
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    lines += [f"{_key(name)} = {_value(name, value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _value(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case str():
            return _string(value)
        case list() | tuple():
            return f"[{', '.join(_value(name, each) for each in value)}]"
    raise RequestError(f"{name} is {json.dumps(value, default=repr)}, which has no form in a settings file.")


def _string(text: str) -> str:
    # JSON's text is TOML's, but for one letter that JSON may leave as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
