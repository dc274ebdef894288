"""Licences that a user accepts before anything of a corpus is downloaded, and what was accepted on this machine.

An acceptance is kept beside the raw files, as `<root>/raw/<dataset>/licence-accepted.json`, with the text that was
accepted; another text is asked for anew.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from mer_bench.atomic import storage_errors, write_atomically
from mer_bench.cards import CardPart, DatasetCard, Terms
from mer_bench.data.files import sha256_of
from mer_bench.errors import DataError, LicenceError
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin

FILE_NAME = "licence-accepted.json"


class Acceptance(CardPart):
    """One text that was accepted.

    Attributes:
        sha256: Checksum of the text. when: Date and time in UTC, ISO 8601.
        owner, url, text: As the card stated them then.
    """

    sha256: str
    when: str
    owner: str
    url: str
    text: str


class Acceptances(CardPart):
    """Every text of a dataset that was accepted on this machine, the oldest first."""

    accepted: tuple[Acceptance, ...] = ()


def require(plugin: Plugin[DatasetCard], root: Path, accept: bool) -> None:
    """Go on only where the dataset's licence is accepted, now or before; write down an acceptance.

    Args:
        accept: The user accepts it now.

    Raises:
        LicenceError: If the card states terms that were never accepted.
        DataError: If the file of acceptances is damaged. StorageError: If it cannot be written.
    """
    terms = plugin.card.terms
    if terms is None:
        return
    earlier = accepted(plugin.name, root)
    checksum = _checksum(terms)
    if any(each.sha256 == checksum for each in earlier.accepted):
        return
    if not accept:
        raise LicenceError(plugin.name, terms.owner, terms.url)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    new = Acceptance(sha256=checksum, when=when, owner=terms.owner, url=terms.url, text=terms.text)
    everything = Acceptances(accepted=(*earlier.accepted, new))
    content = json.dumps(everything.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_atomically(_file(plugin.name, root), content.encode())


def accepted(dataset: str, root: Path) -> Acceptances:
    """What was accepted of a dataset on this machine.

    Raises:
        DataError: If the file that says so is damaged.
    """
    file = _file(dataset, root)
    with storage_errors(f"read {file}"):
        if not file.exists():
            return Acceptances()
        content = file.read_bytes()
    try:
        return Acceptances.model_validate_json(content)
    except ValidationError:
        raise DataError(f"{file} is damaged. Delete it; the licence of {dataset} will be asked for again.") from None


def _file(dataset: str, root: Path) -> Path:
    return raw_folder(root, dataset) / FILE_NAME


def _checksum(terms: Terms) -> str:
    return sha256_of(terms.text.encode())
