"""Pickles as Python 2 writes them, instruction by instruction, since Python 3 writes no byte strings."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np


class Python2Pickler:
    """Writes what Python 2's cPickle writes in protocol 2: byte strings, and arrays by numpy 1's names."""

    def dumps(self, value: Any) -> bytes:
        return b"\x80\x02" + self.write(value) + b"."

    def write(self, value: Any) -> bytes:
        match value:
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int() if 0 <= value < 256:
                return b"K" + bytes([value])
            case int():
                return b"J" + struct.pack("<i", value)
            case str():
                return self.string(value.encode("latin-1"))
            case tuple():
                return b"(" + b"".join(map(self.write, value)) + b"t"
            case list():
                return b"](" + b"".join(map(self.write, value)) + b"e"
            case dict():
                return b"}(" + b"".join(self.write(key) + self.write(item) for key, item in value.items()) + b"u"
            case np.ndarray():
                return self.array(value)
        raise AssertionError(type(value))

    def string(self, value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING
        return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING

    def array(self, value: np.ndarray[Any, Any]) -> bytes:
        kind = str(value.dtype.str[1:]).encode()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01" + self.write(value.shape) + b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R"
            b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
            + self.string(bytes(value.tobytes()))
            + b"tb"
        )
