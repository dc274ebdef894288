"""What a check found: all is well, a reason to refuse a record, or that it could not be checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["passed", "refused", "not checked"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check of one record.

    Attributes:
        check: Its name: `metrics`. said: What was wrong, what it was compared with, or why it could not be checked.
    """

    check: str
    state: State
    said: str


def passed(check: str, said: str) -> Finding:
    """All is well."""
    return Finding(check, "passed", said)


def refused(check: str, said: str) -> Finding:
    """A reason to refuse the record."""
    return Finding(check, "refused", said)


def not_checked(check: str, said: str) -> Finding:
    """There was nothing to check it with."""
    return Finding(check, "not checked", said)
