"""How something is said, as far as writing shows it: marks, capitals, stutters."""

from __future__ import annotations

import re

import numpy as np

from mer_bench.data.text.tokens import tokens

_STUTTER = re.compile(r"\b(\w+)-(?=\1\b)", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z']+")
_TRIPLED = re.compile(r"([a-z])\1\1", re.IGNORECASE)

STYLE_VALUES = (
    "log_tokens",
    "log_exclamation_marks",
    "log_question_marks",
    "exclaims_and_asks",
    "has_ellipsis",
    "log_stutters",
    "log_words_in_capitals",
    "ends_exclaiming",
    "ends_asking",
    "ends_with_full_stop",
    "log_commas",
    "has_tripled_letter",
    "ends_without_mark",
    "begins_in_lower_case",
)


def style(text: str) -> list[float]:
    """The values that `STYLE_VALUES` names, of one normalised text."""
    capitals = sum(len(word) > 1 and word.isupper() for word in _LETTERS.findall(text))
    counts = {
        "log_tokens": max(len(tokens(text)), 1),
        "log_exclamation_marks": text.count("!"),
        "log_question_marks": text.count("?"),
        "log_stutters": len(_STUTTER.findall(text)),
        "log_words_in_capitals": capitals,
        "log_commas": text.count(","),
    }
    marks = {
        "exclaims_and_asks": "?!" in text or "!?" in text,
        "has_ellipsis": "..." in text,
        "ends_exclaiming": text.endswith("!"),
        "ends_asking": text.endswith("?"),
        "ends_with_full_stop": text.endswith("."),
        "has_tripled_letter": _TRIPLED.search(text) is not None,
        "ends_without_mark": text[-1:].isalnum(),
        "begins_in_lower_case": text[:1].islower(),
    }
    values = {**{name: float(np.log1p(count)) for name, count in counts.items()}, **marks}
    return [float(values[name]) for name in STYLE_VALUES]
