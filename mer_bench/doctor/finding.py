"""One line of what was found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

State = Literal["ok", "note", "fault"]
"""`note`: works, but a user should know; `fault`: something that a run needs does not work."""


@dataclass(frozen=True)
class Finding:
    """What was found of one subject.

    Attributes:
        topic: Part of the examination: `versions`, `devices`, `data`.
        found: What is there, in a few words.
        advice: What to do about it; "" where nothing is to be done.
    """

    topic: str
    subject: str
    state: State
    found: str
    advice: str = ""


def ok(topic: str, subject: str, found: str, advice: str = "") -> Finding:
    """Something that works; advice is about what could be added."""
    return Finding(topic, subject, "ok", found, advice)


def note(topic: str, subject: str, found: str, advice: str = "") -> Finding:
    """Something that works, and that a user should know."""
    return Finding(topic, subject, "note", found, advice)


def fault(topic: str, subject: str, found: str, advice: str = "") -> Finding:
    """Something that does not work."""
    return Finding(topic, subject, "fault", found, advice)


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among findings."""
    order: tuple[State, ...] = get_args(State)
    return max((each.state for each in findings), key=order.index, default="ok")
