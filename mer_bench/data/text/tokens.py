"""A text brought into one form, and cut into tokens."""

from __future__ import annotations

import re

_ONE_FORM = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u0091\u0092\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u0093\u0094", '"'),
        **dict.fromkeys("\u2013\u2014\u0096\u0097", "-"),
        **dict.fromkeys("\u2026\u0085", "..."),
        "\u00a0": " ",
        # Neither has a place in UTF-8 bytes of fixed width, in which terms are kept.
        "\u0000": " ",
        **dict.fromkeys(map(chr, range(0xD800, 0xE000)), "\ufffd"),
    }
)
_TOKEN = re.compile(r"n't|'(?:s|re|ve|ll|d|m)\b|[a-z]+(?=n't)|[a-z0-9]+|\.\.\.+|[!?]+|[^\sa-z0-9]")
_ONE_MARK_REPEATED = re.compile(r"([!?])\1+")


def normalise(text: str) -> str:
    """Typographic punctuation as ASCII, white space collapsed; case is kept."""
    return " ".join(text.translate(_ONE_FORM).split())


def tokens(text: str) -> list[str]:
    """Lower-case tokens of a normalised text: do|n't, it|'s; runs such as `...` and `?!` are one token."""
    return _TOKEN.findall(text.lower())


def vector_tokens(text: str) -> list[str]:
    """Tokens as a table of word vectors has them: `!!!` is looked up as `!`."""
    return [token[0] if _ONE_MARK_REPEATED.fullmatch(token) else token for token in tokens(text)]
