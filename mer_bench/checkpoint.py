"""A state of training as one file: tensors as safetensors, everything else as JSON in its header; nothing is run.

A file's name tells whose state it is, and its checksum::

    <label>.<context>.<sha256>.safetensors        epoch-000012.4f0c1a2b3d4e.9b74….safetensors

`label` is the moment, `context` a digest of all that must be equal for a run to go on from here with the very bits
that it would have had undisturbed, and `sha256` is that of the whole file: a flipped bit, a missing end or the file
of another moment under this name are all noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mer_bench.atomic import flush_to_disk, storage_errors, temporary_beside
from mer_bench.errors import CheckpointError

if TYPE_CHECKING:
    from safetensors import SafetensorError
    from torch import Tensor

FORMAT: Final = 1
SUFFIX = ".safetensors"
_HEADER = "mer-bench"
_NAME = re.compile(r"(?P<label>[a-z0-9-]+)\.(?P<context>[0-9a-f]{12})\.(?P<sha256>[0-9a-f]{64})\.safetensors")

Context = Mapping[str, str]
"""What must be equal for a run to go on: its identity, versions, thread count and so on, by name."""


@dataclass(frozen=True)
class Saved:
    """A state that was found; its content is not read yet.

    Attributes:
        label: The moment, such as `epoch-000012`. context: The first twelve digits of the context's digest.
    """

    file: Path
    label: str
    context: str
    sha256: str


def context_digest(context: Context) -> str:
    """The digits that stand for a context in names of files."""
    return hashlib.sha256(json.dumps(dict(context), sort_keys=True).encode()).hexdigest()[:12]


def saved_states(folder: Path) -> list[Saved]:
    """The states in a folder, by label; other files are not looked at."""
    if not folder.is_dir():
        return []
    found = []
    for file in folder.iterdir():
        if match := _NAME.fullmatch(file.name):
            found.append(Saved(file, match["label"], match["context"], match["sha256"]))
    return sorted(found, key=lambda saved: (saved.label, saved.file.name))


def write_state(folder: Path, label: str, context: Context, state: Any) -> Path:
    """Write a state so that it is there as a whole or not at all.

    Args:
        state: Mappings, lists and tuples of tensors, numbers, texts and None, to any depth.

    Raises:
        CheckpointError: If something in it has no form in such a file.
        StorageError: If it cannot be written; nothing is left behind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = _Tensors()
    told = {"format": FORMAT, "label": label, "context": dict(context), "state": _flat(state, tensors, "state")}
    unfinished = temporary_beside(folder / label)
    with storage_errors(f"save the state of a run in {folder}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                save_file(tensors.by_number, unfinished, {_HEADER: json.dumps(told)})
            except SafetensorError as error:
                raise _as_os_error(error) from error
            flush_to_disk(unfinished)
            with unfinished.open("rb") as stream:
                checksum = hashlib.file_digest(stream, "sha256").hexdigest()
            file = folder / f"{label}.{context_digest(context)}.{checksum}{SUFFIX}"
            os.replace(unfinished, file)  # noqa: PTH105 (as in atomic.py)
        finally:
            unfinished.unlink(missing_ok=True)
        flush_to_disk(folder)
    return file


def read_state(saved: Saved) -> tuple[dict[str, str], Any]:
    """The context and the state in a file, each tensor a copy of its own on the CPU.

    Raises:
        CheckpointError: If the file is not what its name says; the reason follows the words "the file".
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = saved.file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(content).hexdigest() != saved.sha256:
        raise CheckpointError("is damaged: its content does not match its checksum")
    try:
        size = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_HEADER])
        if told["format"] != FORMAT:
            raise CheckpointError(f"has format {told['format']}, and this mer-bench reads format {FORMAT}")
        if told["label"] != saved.label or context_digest(told["context"]) != saved.context:
            raise CheckpointError("is that of another run or another moment under this name")
        # Copies, since what is read shares its memory with `content`, which nothing may change.
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}
        return told["context"], _nested(told["state"], tensors)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"is damaged: {type(error).__name__}") from error


class _Tensors:
    """The tensors of a state, each under a number of its own."""

    def __init__(self) -> None:
        self.by_number: dict[str, Tensor] = {}
        self._storages: set[int] = set()

    def add(self, tensor: Tensor) -> str:
        """Its number. Weights that two layers share are written twice: the file has no way to say so."""
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        number = str(len(self.by_number))
        self.by_number[number] = plain.clone() if storage in self._storages else plain
        self._storages.add(storage)
        return number


def _flat(value: Any, tensors: _Tensors, where: str) -> Any:
    """A JSON value, with a number in place of each tensor."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return {"tensor": tensors.add(value)}
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, Mapping):
        if not all(type(key) in (str, int) for key in value):
            raise CheckpointError(f"{where} has keys that are neither texts nor whole numbers")
        return {"map": [[key, _flat(part, tensors, f"{where}.{key}")] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flat(part, tensors, f"{where}.{place}") for place, part in enumerate(value)]}
    raise CheckpointError(f"{where} is a {type(value).__name__}, which cannot be saved")


def _nested(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    if kind == "tensor":
        return tensors[parts]
    if kind == "float":
        return float(parts)
    if kind == "map":
        return {key: _nested(part, tensors) for key, part in parts}
    return {"list": list, "tuple": tuple}[kind](_nested(part, tensors) for part in parts)


def _as_os_error(error: SafetensorError) -> OSError:
    """What the operating system said: safetensors tells it in words alone, as in `(os error 28)`."""
    found = re.search(r"os error ([0-9]+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else OSError(str(error))
