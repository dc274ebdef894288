"""Read pickles of other people without running anything in them.

Feature releases of the field are pickles, and a pickle is a small program that may call whatever it names. So
nothing here is unpickled by Python: the few instructions that data need are carried out one by one, and build

- None, bool, int, float, complex, str, bytes, bytearray; list, tuple, dict, set, frozenset;
- numpy arrays, scalars and dtypes of numbers and strings, and object arrays of the above.

A name other than those that these need (`ADMITTED`) ends the reading where it stands: no name is ever imported,
and the only foreign code that runs is numpy's, on shapes, types and sizes checked before. Byte strings of Python 2
become str as latin-1. Memory stays in proportion to the file; depth, and what a value unfolds to when its shared parts
are written out, are bounded, so that whoever walks through the value afterwards comes to an end.
"""

from __future__ import annotations

import codecs
import math
import mmap
import os
import re
import stat
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import DataError, MissingDataError, UnsafePickleError

MAX_BYTES = 1 << 30
"""Largest file that is read unless the caller says otherwise."""

MAX_DEPTH = 64
"""Deepest nesting of containers; known releases have 4."""

MAX_ITEMS = 200_000_000
"""Most items in a value when shared parts are counted each time they occur."""

MEMORY_FLOOR = 64 << 20
MEMORY_RATIO = 64
MAX_MEMORY = 6 << 30
"""What is built may take so many bytes, plus so many a byte of the file, and never more than the last."""

MAX_INT_BYTES = 128

_GIVEN_BACK = 4 << 20
"""So many bytes of a large file that were read are given back to the system at a time."""

_CAN_GIVE_BACK = sys.platform == "linux" and hasattr(mmap.mmap, "madvise")

ADMITTED = {
    **{
        (f"numpy.{core}.{room}", name): kind
        for core in ("core", "_core")
        for room, name, kind in (
            ("multiarray", "_reconstruct", "reconstruct"),
            ("multiarray", "scalar", "scalar"),
            ("numeric", "_frombuffer", "frombuffer"),
        )
    },
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{
        (room, name): name
        for room in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "bytes", "bytearray", "complex")
    },
}
"""Every name that a pickle may ask for, and what stands for it here."""

_DTYPE_CODE = re.compile(r"[biufc](1|2|4|8|16)|[SUa][0-9]{1,6}|O[48]?|\?")
_KEYS = (type(None), bool, int, float, complex, str, bytes, np.generic)


def load_restricted(file: Path, *, max_bytes: int = MAX_BYTES, packed: bool = False) -> Any:
    """The value in a pickle file, of any protocol from 0 to 5 and of Python 2 or 3.

    Args:
        packed: Lists of floats that stand in a list, in a dict or alone come back as float64 arrays, a quarter of
            their size in memory.

    Raises:
        MissingDataError: If the file is not there.
        UnsafePickleError: If it asks for anything that data never need; names it.
        DataError: If it is no pickle, damaged, cut off, larger than `max_bytes`, or built to exhaust
            memory, stack or time.
    """
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{file} is not an ordinary file.")
            if status.st_size > max_bytes:
                raise DataError(f"{file} has {status.st_size} bytes; {max_bytes} are the most that is read.")
            data = _private_memory(status.st_size)
            length = stream.readinto(data)
            grew = bool(stream.read(1))
    except FileNotFoundError:
        raise MissingDataError(f"{file} is not there.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
    except (MemoryError, OverflowError):
        raise DataError(f"{file} has {status.st_size} bytes, for which there is no memory.") from None
    if grew or length != status.st_size:
        raise DataError(f"{file} changed while it was read; try again.")
    return _Reader(data, str(file), packed).read()


def _private_memory(size: int) -> bytearray | mmap.mmap:
    """Memory for a file, of which what was read can be given back before the rest is."""
    if size < _GIVEN_BACK or not _CAN_GIVE_BACK:
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def loads_restricted(data: bytes, origin: str, *, packed: bool = False) -> Any:
    """The same for bytes in memory; `origin` names them in messages."""
    return _Reader(data, origin, packed).read()


class _Name:
    """An admitted name; it is never the thing that it names."""

    def __init__(self, module: str, name: str) -> None:
        self.kind = ADMITTED[module, name]
        self.written = f"{module}.{name}"


class _MalformedError(Exception):
    """The stream is not a valid pickle; the reader adds the file and the place."""


class _Reader:
    """Carries out one pickle stream.

    Attributes:
        stack: Values not yet used. marks: Heights of the stack at which a MARK stands.
        memo: What PUT kept for GET. unbuilt: Arrays whose content has not come yet, by identity.
        packed: Lists that hold floats alone, by identity, each with its floats; the list itself is empty meanwhile.
            None where lists stay lists.
        spent: About how many bytes the values built so far take.
    """

    def __init__(self, data: bytes | bytearray | mmap.mmap, origin: str, packed: bool = False) -> None:
        self.data = data
        self.origin = origin
        self.place = 0
        self.given_back = 0
        self.give_back_at = _GIVEN_BACK if isinstance(data, mmap.mmap) else len(data) + 1
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.unbuilt: dict[int, NDArray[Any]] = {}
        self.bare_types: dict[int, Any] = {}
        self.packed: dict[int, tuple[list[Any], array[float]]] | None = {} if packed else None
        self.spent = 0
        self.limit = min(MEMORY_FLOOR + MEMORY_RATIO * len(data), MAX_MEMORY)

    def read(self) -> Any:
        data, steps = self.data, _STEPS
        start = 0
        try:
            while True:
                start = self.place
                if start >= self.give_back_at:
                    self.give_back()
                code = data[start]
                self.place = start + 1
                if code == 0x2E:  # STOP
                    value = self.pop()
                    break
                step = steps.get(code)
                if step is None:
                    raise _MalformedError(f"0x{code:02x} is no instruction of a pickle")
                step(self)
            self.check(value)
            if self.packed:
                value = self.with_arrays(value)
        except _MalformedError as error:
            hint = " Is it a pickle at all?" if start == 0 else ""
            raise DataError(f"{self.origin} is not a valid pickle: {error}, at byte {start}.{hint}") from None
        except IndexError:
            raise DataError(
                f"{self.origin} ends in the middle, after {len(data)} bytes. Is its download complete?"
            ) from None
        except (ValueError, TypeError, OverflowError, struct.error) as error:
            # What numpy or a decoder says about a value that passed the checks here.
            raise DataError(f"{self.origin} is not a valid pickle: {error}, at byte {start}.") from None
        except MemoryError:
            raise DataError(f"{self.origin} needs more memory than there is, at byte {start}.") from None
        return value

    # What the instructions share.

    def take(self, count: int) -> bytes:
        end = self.place + count
        if end > len(self.data):
            raise IndexError
        part = bytes(self.data[self.place : end])
        self.place = end
        return part

    def give_back(self) -> None:
        """Let go of the part of the file that was read; nothing goes back to it."""
        assert isinstance(self.data, mmap.mmap)
        end = self.place // mmap.PAGESIZE * mmap.PAGESIZE
        self.data.madvise(mmap.MADV_DONTNEED, self.given_back, end - self.given_back)
        self.given_back, self.give_back_at = end, self.place + _GIVEN_BACK

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise IndexError
        part = bytes(self.data[self.place : end])
        self.place = end + 1
        return part

    def spend(self, count: int) -> None:
        self.spent += count
        if self.spent > self.limit:
            raise _MalformedError(f"it builds far more than its {len(self.data)} bytes can rightly hold")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _MalformedError("an instruction finds nothing to work on")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _MalformedError("an instruction finds nothing to work on")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        if not self.marks:
            raise _MalformedError("an instruction finds no mark")
        height = self.marks.pop()
        items = self.stack[height:]
        del self.stack[height:]
        return items

    def push_sized(self, value: Any) -> None:
        self.spend(sys.getsizeof(value))
        self.stack.append(value)

    def refuse(self, wanted: str) -> UnsafePickleError:
        return UnsafePickleError(
            f"{self.origin} asks for {wanted}, which data never need; it is refused and nothing of it was run."
        )

    # Names and calls.

    def push_name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise _MalformedError("a name is no text")
        if (module, name) not in ADMITTED:
            raise self.refuse(_quoted(f"{module}.{name}"))
        self.push_sized(_Name(module, name))

    def step_global(self) -> None:
        self.push_name(self.line().decode(), self.line().decode())

    def step_stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.push_name(module, name)

    def step_inst(self) -> None:
        raise self.refuse(_quoted(f"{self.line().decode(errors='replace')}.{self.line().decode(errors='replace')}"))

    def step_object(self) -> None:
        raise self.refuse("an object of a class")

    def step_extension(self) -> None:
        raise self.refuse("a registered extension")

    def step_persistent(self) -> None:
        raise self.refuse("an object outside the file")

    def step_buffer(self) -> None:
        raise self.refuse("a buffer outside the file")

    def step_reduce(self) -> None:  # noqa: PLR0912 - one table of everything that may be called
        given, name = self.pop(), self.pop()
        if self.packed and type(given) is tuple:
            for part in given:
                self.unpack(part)
        if not isinstance(name, _Name):
            raise _MalformedError("a call of something that is no name")
        if type(given) is not tuple:
            raise _MalformedError(f"a call of {name.written} without its values")
        match name.kind, given:
            case "reconstruct", (_Name(kind="ndarray"), (0,), "b" | b"b"):
                made: Any = np.zeros(0, dtype=np.int8)
                self.unbuilt[id(made)] = made
                self.spend(256)
            case "dtype", (str() as code, align, copy) if align in (0, 1, False, True) and copy in (0, 1, False, True):
                made = self.dtype(code)
            case "scalar", (np.dtype() as dtype, content):
                made = self.scalar(dtype, content)
            case "frombuffer", (content, np.dtype() as dtype, tuple() as shape, ("C" | "F") as order):
                made = self.array(content, dtype, shape).reshape(shape, order=order)
            case "frombuffer", (content, np.dtype() as dtype, tuple() as shape, "K", tuple() as axes):
                made = self.array(content, dtype, shape).reshape(shape)
                made = made.transpose(self.dimensions(axes))
            case "encode", (str() as text, str() as encoding) if encoding in ("latin1", "latin-1"):
                self.spend(len(text))
                made = text.encode("latin-1")
            case ("set" | "frozenset") as kind, (list() as items,):
                made = frozenset(self.keys(items)) if kind == "frozenset" else set(self.keys(items))
            case "set", ():
                made = set()
            case "bytes", ():
                made = b""
            case "bytearray", () | (bytes(),):
                self.spend(len(given[0]) if given else 0)
                made = bytearray(*given)
            case "bytearray", (str() as text, "latin1" | "latin-1"):
                self.spend(len(text))
                made = bytearray(text, "latin-1")
            case "complex", (float() as real, float() as imaginary):
                made = complex(real, imaginary)
            case _:
                raise self.refuse(f"{_quoted(name.written)} with values that data never give it")
        self.push_sized(made)

    def step_build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, np.dtype):
            self.build_dtype(target, state)
        elif isinstance(target, np.ndarray) and id(target) in self.unbuilt:
            self.build_array(target, state)
        else:
            raise self.refuse("a change of state of something that is no array")

    # numpy.

    def dtype(self, code: str) -> np.dtype[Any]:
        if not _DTYPE_CODE.fullmatch(code):
            raise self.refuse(f"the array type {_quoted(code)}")
        # A copy, so that setting its byte order leaves numpy's own alone.
        made: np.dtype[Any] = np.dtype(code, align=False, copy=True)
        self.bare_types[id(made)] = made
        self.spend(128)
        return made

    def build_dtype(self, target: Any, state: Any) -> None:
        """Set the byte order: the one thing that the state of an admitted type can say."""
        if self.bare_types.pop(id(target), None) is None:
            raise _MalformedError("an array type is described twice")
        match state:
            case (3 | 4, "<" | ">" | "|" | "=", None, None, None, int(), int(), int(), *rest) if rest in ([], [None]):
                ours = target.newbyteorder("=" if state[1] == "|" else state[1])
                # numpy's own description of the type goes in, never the one from the file, which
                # could claim another size.
                target.__setstate__(ours.__reduce__()[2])
            case _:
                raise self.refuse("an array type with fields")

    def dimensions(self, shape: tuple[Any, ...]) -> tuple[int, ...]:
        if len(shape) > 32 or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
            raise _MalformedError("an array has an impossible shape")
        return shape

    def content(self, content: Any, size: int) -> bytes:
        if isinstance(content, str):
            content = content.encode("latin-1")
        if not isinstance(content, bytes | bytearray):
            raise _MalformedError("an array's content is no byte string")
        if len(content) != size:
            raise _MalformedError(f"an array of {size} bytes has {len(content)}")
        self.spend(size)
        return bytes(content)

    def array(self, content: Any, dtype: np.dtype[Any], shape: tuple[Any, ...]) -> NDArray[Any]:
        """A flat array of its own memory, for a shape."""
        if dtype.hasobject:
            raise self.refuse("objects from a buffer")
        count = math.prod(self.dimensions(shape))
        held = self.content(content, count * dtype.itemsize)
        if not held:
            return np.zeros(count if not dtype.itemsize and count < len(self.data) else 0, dtype=dtype)
        return np.frombuffer(held, dtype=dtype).copy()

    def scalar(self, dtype: np.dtype[Any], content: Any) -> Any:
        if dtype.hasobject:
            raise self.refuse("an object as a number")
        held = self.content(content, dtype.itemsize)
        return np.frombuffer(held, dtype=dtype)[0] if held else np.zeros(1, dtype=dtype)[0]

    def build_array(self, target: Any, state: Any) -> None:
        if self.packed and type(state) is tuple:
            for part in state:
                self.unpack(part)
        match state:
            case (1, tuple() as shape, np.dtype() as dtype, fortran, content) if fortran in (0, 1, False, True):
                count = math.prod(self.dimensions(shape))
            case _:
                raise _MalformedError("an array's content is not as numpy writes it")
        if dtype.hasobject:
            if type(content) is not list or len(content) != count:
                raise _MalformedError(f"an array of {count} objects has another content")
            self.spend(8 * count)
        else:
            content = self.content(content, count * dtype.itemsize)
            if not dtype.itemsize and count > len(self.data):
                raise _MalformedError("an array has an impossible shape")
        del self.unbuilt[id(target)]
        target.__setstate__((1, shape, dtype, bool(fortran), content))

    # Containers.

    def keys(self, values: Iterable[Any]) -> Iterator[Any]:
        """The same values, each made sure to be hashed at once: no deep tuples, no numbers chosen to collide."""
        for value in values:
            kind = type(value)
            plain = len(value) <= 16 and all(isinstance(part, _KEYS) for part in value) if kind is tuple else False
            if not plain and not isinstance(value, _KEYS):
                raise _MalformedError("a key is no plain value")
            if kind is int and not -(1 << 60) < value < 1 << 60:
                raise _MalformedError("a key is an oversized number")
            self.spend(64)
            yield value

    def step_mark(self) -> None:
        self.spend(40)
        self.marks.append(len(self.stack))

    def step_pop(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def step_pop_mark(self) -> None:
        self.since_mark()

    def step_dup(self) -> None:
        self.spend(8)
        self.stack.append(self.top())

    def step_empty_list(self) -> None:
        self.push_sized([])

    def step_empty_dict(self) -> None:
        self.push_sized({})

    def step_empty_set(self) -> None:
        self.push_sized(set())

    def step_empty_tuple(self) -> None:
        self.spend(8)
        self.stack.append(())

    def step_list(self) -> None:
        items = self.since_mark()
        if self.packed is None or not items:
            self.push_sized(items)
        else:
            made: list[Any] = []
            self.push_sized(made)
            self.extend(made, items)

    def step_tuple(self) -> None:
        self.push_sized(tuple(self.since_mark()))

    def step_tuple1(self) -> None:
        self.push_sized((self.pop(),))

    def step_tuple2(self) -> None:
        second, first = self.pop(), self.pop()
        self.push_sized((first, second))

    def step_tuple3(self) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self.push_sized((first, second, third))

    def step_dict(self) -> None:
        items = self.since_mark()
        made: dict[Any, Any] = {}
        self.fill(made, items)
        self.push_sized(made)

    def step_frozenset(self) -> None:
        self.push_sized(frozenset(self.keys(self.since_mark())))

    def step_append(self) -> None:
        item, target = self.pop(), self.top()
        if type(target) is not list:
            raise _MalformedError("an item is put on something that is no list")
        self.spend(16)
        if self.packed is None:
            target.append(item)
        else:
            self.extend(target, [item])

    def step_appends(self) -> None:
        items = self.since_mark()
        target = self.top()
        if type(target) is not list:
            raise _MalformedError("items are put on something that is no list")
        self.spend(9 * len(items))
        if self.packed is None:
            target.extend(items)
        else:
            self.extend(target, items)

    def extend(self, target: list[Any], items: list[Any]) -> None:
        """Add to a list of which floats are kept apart."""
        assert self.packed is not None
        known = self.packed.get(id(target))
        if (known is not None or not target) and set(map(type, items)) == {float}:
            if known is None:
                known = self.packed[id(target)] = (target, array("d"))
                self.spend(200)
            known[1].extend(items)
            return
        self.unpack(target)
        target.extend(items)

    def unpack(self, value: Any) -> None:
        """Put the floats that are kept apart into their list."""
        known = self.packed.pop(id(value), None) if self.packed else None
        if known is not None:
            self.spend(32 * len(known[1]))
            known[0].extend(known[1])

    def with_arrays(self, root: Any) -> Any:
        """The value with an array for each list of floats, but in tuples and sets, whose lists stay lists."""
        assert self.packed is not None
        arrays: dict[int, NDArray[Any]] = {}

        def replaced(part: Any) -> Any:
            known = self.packed.get(id(part)) if self.packed else None
            if known is None:
                return part
            # The list stays in `packed`, so that its identity is not given to another.
            return arrays.setdefault(id(part), np.frombuffer(known[1], dtype=np.float64))

        seen: set[int] = set()
        todo = [root]
        while todo:
            value = todo.pop()
            if id(value) in seen or not self.is_container(value):
                continue
            seen.add(id(value))
            if isinstance(value, dict):
                for key, part in value.items():
                    value[key] = replaced(part)
                todo.extend(value.values())
            elif isinstance(value, list) and id(value) not in self.packed:
                value[:] = [replaced(part) for part in value]
                todo.extend(value)
            elif not isinstance(value, list):
                for part in _parts(value):
                    known = self.packed.get(id(part))
                    if known is not None and not known[0]:
                        # It stays in `packed`: elsewhere the same list may stand in a list.
                        self.spend(32 * len(known[1]))
                        known[0].extend(known[1])
                todo.extend(_parts(value))
        return replaced(root)

    def step_set_item(self) -> None:
        value, key, target = self.pop(), self.pop(), self.top()
        self.fill(target, [key, value])

    def step_set_items(self) -> None:
        items = self.since_mark()
        self.fill(self.top(), items)

    def fill(self, target: Any, items: list[Any]) -> None:
        if type(target) is not dict or len(items) % 2:
            raise _MalformedError("keys are given to something that is no dict")
        target.update(zip(self.keys(items[::2]), items[1::2], strict=True))

    def step_add_items(self) -> None:
        items = self.since_mark()
        target = self.top()
        if type(target) is not set:
            raise _MalformedError("members are given to something that is no set")
        target.update(self.keys(items))

    # Plain values.

    def step_none(self) -> None:
        self.spend(8)
        self.stack.append(None)

    def step_true(self) -> None:
        self.spend(8)
        self.stack.append(True)

    def step_false(self) -> None:
        self.spend(8)
        self.stack.append(False)

    def step_int1(self) -> None:
        self.spend(8)
        self.stack.append(self.take(1)[0])

    def step_int2(self) -> None:
        self.push_sized(self.number(2))

    def step_int4(self) -> None:
        self.push_sized(self.number(4, signed=True))

    def step_int_line(self) -> None:
        line = self.line()
        if line in (b"00", b"01"):
            self.stack.append(line == b"01")
        else:
            self.push_sized(self.whole(line))

    def step_long_line(self) -> None:
        self.push_sized(self.whole(self.line().removesuffix(b"L")))

    def whole(self, line: bytes) -> int:
        if not re.fullmatch(rb"[+-]?[0-9]{1,300}", line.strip()):
            raise _MalformedError("a whole number is written in no known way")
        return int(line)

    def step_long1(self) -> None:
        self.long(self.number(1))

    def step_long4(self) -> None:
        self.long(self.number(4, signed=True))

    def long(self, count: int) -> None:
        if not 0 <= count <= MAX_INT_BYTES:
            raise _MalformedError(f"a whole number of {count} bytes")
        self.push_sized(self.number(count, signed=True))

    def step_float(self) -> None:
        place = self.place
        if place + 8 > len(self.data):
            raise IndexError
        if place + 17 < len(self.data) and self.data[place + 8] == self.data[place + 17] == _FLOAT_CODE:
            self.floats()
            return
        self.spend(32)
        self.stack.append(_FLOAT.unpack_from(self.data, place)[0])
        self.place = place + 8

    def floats(self) -> None:
        """Several floats that follow each other, at once."""
        first = self.place - 1
        count = min(1024, (len(self.data) - first) // 9)
        run = np.frombuffer(self.data, dtype=_FLOATS, count=count, offset=first)
        others = np.flatnonzero(run["code"] != _FLOAT_CODE)
        if len(others):
            run = run[: others[0]]
        self.spend(32 * len(run))
        self.stack.extend(run["value"].tolist())
        self.place = first + 9 * len(run)

    def step_float_line(self) -> None:
        self.push_sized(float(self.line()))

    def step_string_line(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise _MalformedError("a string has no quotes")
        self.push_sized(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))

    def step_string1(self) -> None:
        self.push_sized(self.take(self.number(1)).decode("latin-1"))

    def step_string4(self) -> None:
        self.push_sized(self.take(self.length(self.number(4, signed=True))).decode("latin-1"))

    def step_bytes1(self) -> None:
        self.push_sized(self.take(self.number(1)))

    def step_bytes4(self) -> None:
        self.push_sized(self.take(self.number(4)))

    def step_bytes8(self) -> None:
        self.push_sized(self.take(self.number(8)))

    def step_bytearray8(self) -> None:
        self.push_sized(bytearray(self.take(self.number(8))))

    def step_text_line(self) -> None:
        self.push_sized(self.line().decode("raw-unicode-escape"))

    def step_text1(self) -> None:
        self.push_sized(self.take(self.number(1)).decode("utf-8", "surrogatepass"))

    def step_text4(self) -> None:
        self.push_sized(self.take(self.number(4)).decode("utf-8", "surrogatepass"))

    def step_text8(self) -> None:
        self.push_sized(self.take(self.number(8)).decode("utf-8", "surrogatepass"))

    def length(self, count: int) -> int:
        if count < 0:
            raise _MalformedError("a string of negative length")
        return count

    # Memo and frame.

    def step_protocol(self) -> None:
        version = self.number(1)
        if version > 5:
            raise _MalformedError(f"pickle protocol {version} is not known")

    def step_frame(self) -> None:
        if self.number(8) > len(self.data) - self.place:
            raise IndexError

    def keep(self, index: int) -> None:
        self.spend(64)
        self.memo[index] = self.top()

    def step_put_line(self) -> None:
        self.keep(self.whole(self.line()))

    def step_put1(self) -> None:
        self.keep(self.number(1))

    def step_put4(self) -> None:
        self.keep(self.number(4))

    def step_memoize(self) -> None:
        self.keep(len(self.memo))

    def step_get_line(self) -> None:
        self.fetch(self.whole(self.line()))

    def step_get1(self) -> None:
        self.fetch(self.number(1))

    def step_get4(self) -> None:
        self.fetch(self.number(4))

    def fetch(self, index: int) -> None:
        if index not in self.memo:
            raise _MalformedError(f"what was kept as number {index} is asked for, and nothing was")
        self.spend(8)
        self.stack.append(self.memo[index])

    # The value as a whole.

    def check(self, root: Any) -> None:
        """Refuse a value that contains itself, is nested too deep, or unfolds without end; no recursion."""
        done: dict[int, tuple[int, int]] = {}  # container -> depth, items when unfolded
        open_now: set[int] = set()
        todo: list[tuple[Any, bool]] = [(root, False)]
        while todo:
            value, left = todo.pop()
            if not self.is_container(value) or id(value) in done:
                continue
            if left:
                parts = [done.get(id(part), (0, 1)) for part in _parts(value)]
                depth = 1 + max((part[0] for part in parts), default=0)
                items = 1 + sum(part[1] for part in parts)
                if depth > MAX_DEPTH:
                    raise _MalformedError(f"its containers are nested more than {MAX_DEPTH} deep")
                if items > MAX_ITEMS:
                    raise _MalformedError(f"its shared parts unfold to more than {MAX_ITEMS} items")
                done[id(value)] = (depth, items)
                open_now.discard(id(value))
                continue
            if id(value) in open_now:
                raise _MalformedError("a container holds itself")
            parts_now = _parts(value)
            if not isinstance(value, np.ndarray) and set(map(type, parts_now)) <= _LEAVES:
                apart = self.packed.get(id(value)) if self.packed else None
                done[id(value)] = (1, 1 + (len(apart[1]) if apart else len(parts_now)))
                continue
            open_now.add(id(value))
            todo.append((value, True))
            todo.extend((part, False) for part in parts_now)

    def is_container(self, value: Any) -> bool:
        if isinstance(value, _Name):
            raise self.refuse(f"{_quoted(value.written)} as a value")
        if isinstance(value, np.ndarray):
            if id(value) in self.unbuilt:
                raise _MalformedError("an array's content is missing")
            return bool(value.dtype.hasobject)
        return isinstance(value, list | tuple | dict | set | frozenset)


_FLOAT = struct.Struct(">d")
_FLOAT_CODE = ord("G")
_FLOATS = np.dtype([("code", "u1"), ("value", ">f8")])
_LEAVES = frozenset((*_KEYS, bytearray))


def _parts(container: Any) -> list[Any] | tuple[Any, ...]:
    if isinstance(container, dict):
        return [*container.keys(), *container.values()]
    if isinstance(container, np.ndarray):
        return [container[place] for place in np.ndindex(container.shape)]
    return container if isinstance(container, list | tuple) else list(container)


def _quoted(name: str) -> str:
    """A name from a file as it may be printed: short, and without control characters."""
    shown = name if len(name) <= 120 else name[:117] + "..."
    return "'" + "".join(sign if sign.isprintable() else "?" for sign in shown) + "'"


_STEPS: dict[int, Callable[[_Reader], None]] = {
    ord(code): step
    for code, step in {
        "\x80": _Reader.step_protocol,
        "\x95": _Reader.step_frame,
        "(": _Reader.step_mark,
        "0": _Reader.step_pop,
        "1": _Reader.step_pop_mark,
        "2": _Reader.step_dup,
        "N": _Reader.step_none,
        "\x88": _Reader.step_true,
        "\x89": _Reader.step_false,
        "I": _Reader.step_int_line,
        "J": _Reader.step_int4,
        "K": _Reader.step_int1,
        "M": _Reader.step_int2,
        "L": _Reader.step_long_line,
        "\x8a": _Reader.step_long1,
        "\x8b": _Reader.step_long4,
        "F": _Reader.step_float_line,
        "G": _Reader.step_float,
        "S": _Reader.step_string_line,
        "T": _Reader.step_string4,
        "U": _Reader.step_string1,
        "B": _Reader.step_bytes4,
        "C": _Reader.step_bytes1,
        "\x8e": _Reader.step_bytes8,
        "\x96": _Reader.step_bytearray8,
        "V": _Reader.step_text_line,
        "X": _Reader.step_text4,
        "\x8c": _Reader.step_text1,
        "\x8d": _Reader.step_text8,
        "]": _Reader.step_empty_list,
        "}": _Reader.step_empty_dict,
        ")": _Reader.step_empty_tuple,
        "\x8f": _Reader.step_empty_set,
        "l": _Reader.step_list,
        "t": _Reader.step_tuple,
        "\x85": _Reader.step_tuple1,
        "\x86": _Reader.step_tuple2,
        "\x87": _Reader.step_tuple3,
        "d": _Reader.step_dict,
        "\x91": _Reader.step_frozenset,
        "a": _Reader.step_append,
        "e": _Reader.step_appends,
        "s": _Reader.step_set_item,
        "u": _Reader.step_set_items,
        "\x90": _Reader.step_add_items,
        "p": _Reader.step_put_line,
        "q": _Reader.step_put1,
        "r": _Reader.step_put4,
        "\x94": _Reader.step_memoize,
        "g": _Reader.step_get_line,
        "h": _Reader.step_get1,
        "j": _Reader.step_get4,
        "c": _Reader.step_global,
        "\x93": _Reader.step_stack_global,
        "R": _Reader.step_reduce,
        "b": _Reader.step_build,
        "i": _Reader.step_inst,
        "o": _Reader.step_object,
        "\x81": _Reader.step_object,
        "\x92": _Reader.step_object,
        "\x82": _Reader.step_extension,
        "\x83": _Reader.step_extension,
        "\x84": _Reader.step_extension,
        "P": _Reader.step_persistent,
        "Q": _Reader.step_persistent,
        "\x97": _Reader.step_buffer,
        "\x98": _Reader.step_buffer,
    }.items()
}
