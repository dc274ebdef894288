"""The made-up corpus and models, for every test here."""

from __future__ import annotations

from tests.trios import place, whole

__all__ = ["place", "whole"]
