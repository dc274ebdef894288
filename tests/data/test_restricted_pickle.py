"""The restricted reader: right on data, and deaf to everything else.

Hostile streams are written instruction by instruction, since nobody's `pickle.dumps` makes them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
import time
from collections import Counter, OrderedDict
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mer_bench.data import restricted_pickle
from mer_bench.data.restricted_pickle import load_restricted, loads_restricted
from mer_bench.errors import DataError, MissingDataError, UnsafePickleError

PROTOCOLS = range(6)
PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "published"


def read(data: bytes) -> Any:
    return loads_restricted(data, "x.pkl")


def same(one: Any, other: Any) -> bool:
    """Equal in type and in value, through containers and arrays."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        if str(one.dtype) != str(other.dtype) or one.shape != other.shape:
            return False
        if one.dtype.hasobject:
            return all(same(a, b) for a, b in zip(one.flat, other.flat, strict=True))
        return bool(one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.generic):
        return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    return bool(one == other)


def without_arrays(value: Any) -> Any:
    """The value with a list for each array of floats, in lists, tuples and dicts."""
    if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim == 1:
        return value.tolist()
    if isinstance(value, dict):
        return {key: without_arrays(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(without_arrays, value))
    return value


class TestData:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            [False, 0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, -(2**63), 10**30, -(10**30)],
            [0.0, -0.0, 1.5, 1e300, float("inf")],
            1j,
            ["", "a", "ä", "語\n", "\\u0041", "\udc80", "'quoted\"", "x" * 300, "y" * 70_000],
            [b"", b"a", bytes(range(256)), b"x" * 300],
            bytearray(b"abc"),
            [[], (), {}, set(), frozenset()],
            [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
            {"a": [1, {2: (3, {4})}], ("b", 1): frozenset({"c"}), None: 0, 1.5: 1, b"x": 2},
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6).reshape(2, 3)),
            np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
            np.arange(8.0)[::2],
            np.array(1.5),
            np.zeros((0, 3), dtype=np.float32),
            np.arange(3, dtype=">i4"),
            np.array(["", "ab", "ä"]),
            np.array([b"a", b"bcd"]),
            np.array([True, False]),
            np.array([1 + 2j]),
            np.array(["a", None, {"b": [1]}], dtype=object),
            np.array([[1, "x"], [None, 2.0]], dtype=object, order="F"),
            [
                np.float32(1.5),
                np.float64("nan"),
                np.int64(3),
                np.bool_(True),
                np.str_("ab"),
                np.str_(""),
                np.bytes_(b"x"),
            ],
            [np.dtype("f4"), np.dtype(">i2"), np.dtype("U3")],
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_same_as_unpickling(self, value: Any, protocol: int) -> None:
        data = pickle.dumps(value, protocol=protocol)
        assert same(read(data), pickle.loads(data))

    plain = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**200), 2**200)
        | st.floats()
        | st.text()
        | st.binary()
        | npst.arrays(
            npst.floating_dtypes(sizes=(32, 64)) | npst.integer_dtypes() | npst.boolean_dtypes(),
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        ),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(st.text(max_size=5) | st.integers(-100, 100), inner, max_size=4)
            | st.sets(st.text(max_size=3) | st.integers(-100, 100), max_size=4)
        ),
        max_leaves=20,
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(value=plain, protocol=st.sampled_from(PROTOCOLS))
    def test_any_data_come_through(self, value: Any, protocol: int) -> None:
        data = pickle.dumps(value, protocol=protocol)
        assert same(read(data), pickle.loads(data))

    def test_shared_parts_stay_shared(self) -> None:
        vector, row = np.arange(3.0), [1, 2]
        for protocol in PROTOCOLS:
            found = read(pickle.dumps([vector, row, vector, row], protocol=protocol))
            assert found[0] is found[2]
            assert found[1] is found[3]

    def test_both_spellings_of_numpy(self) -> None:
        for protocol in (2, 4, 5):
            data = pickle.dumps([np.arange(3.0), np.float32(2)], protocol=protocol)
            for there, here in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
                if protocol == 2:
                    other = data.replace(there, here)
                else:  # the length stands before the name, and frames hold lengths too
                    text = pickletools.optimize(pickle.dumps([np.arange(3.0), np.float32(2)], protocol=protocol))
                    other = text
                    for room in (b".multiarray", b".numeric"):
                        old, new = there + room, here + room
                        other = other.replace(b"\x8c" + bytes([len(old)]) + old, b"\x8c" + bytes([len(new)]) + new)
                    frame = other.index(b"\x95")
                    other = other[:frame] + other[frame + 9 :]
                assert same(read(other), [np.arange(3.0), np.float32(2)])

    def test_python_2_strings_are_latin_1(self) -> None:
        assert read(b"\x80\x02U\x04caf\xe9.") == "café"
        assert read(b"\x80\x02T\x04\x00\x00\x00caf\xe9.") == "café"
        assert read(b"S'caf\\xe9\\n\\''\np0\n.") == "café\n'"

    def test_a_python_2_array(self) -> None:
        """The instructions that Python 2 and numpy 1 write for `array([1., 2.], 'f4')`."""
        numbers = struct.pack("<2f", 1, 2)
        data = (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06"
            b"(K\x01K\x02\x85q\x07cnumpy\ndtype\nq\x08U\x02f4q\tK\x00K\x01\x87q\nRq\x0b"
            b"(K\x03U\x01<q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\rb\x89U\x08" + numbers + b"q\x0etq\x0fb."
        )
        pickletools.dis(data, out=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        assert same(read(data), np.array([1, 2], dtype=np.float32))

    def test_numpys_own_types_stay_as_they_are(self) -> None:
        before = np.dtype("f8").str, np.dtype("i4").str
        read(pickle.dumps([np.dtype(">f8"), np.arange(2, dtype=">i4")], protocol=4))
        assert (np.dtype("f8").str, np.dtype("i4").str) == before

    def test_bytes_after_the_end_are_ignored_as_pickle_does(self) -> None:
        assert read(pickle.dumps([1]) + b"rest") == [1]


def called(name: str, *given: str) -> bytes:
    """Calls a name with strings, in protocol 2."""
    module, _, attribute = name.rpartition(".")
    inner = b"".join(b"X" + struct.pack("<I", len(text)) + text.encode() for text in given)
    return b"\x80\x02c" + module.encode() + b"\n" + attribute.encode() + b"\n(" + inner + b"tR."


def called_by_stack(module: str, name: str) -> bytes:
    return (
        b"\x80\x04\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(name)])
        + name.encode()
        + b"\x93)R."
    )


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"


class TestHostile:
    @pytest.mark.parametrize(
        "name",
        [
            "os.system",
            "posix.system",
            "nt.system",
            "subprocess.Popen",
            "subprocess.check_output",
            "builtins.eval",
            "builtins.exec",
            "builtins.getattr",
            "builtins.__import__",
            "__builtin__.eval",
            "__builtin__.apply",
            "builtins.open",
            "builtins.print",
            "builtins.list",
            "builtins.int",
            "builtins.range",
            "shutil.rmtree",
            "importlib.import_module",
            "operator.attrgetter",
            "functools.partial",
            "copyreg._reconstructor",
            "copy_reg._reconstructor",
            "copyreg.__newobj__",
            "_codecs.decode",
            "codecs.encode",
            "numpy.load",
            "numpy.fromfile",
            "numpy.memmap",
            "numpy.core.multiarray.frombuffer",
            "numpy.testing._private.utils.runstring",
            "numpy.f2py.crackfortran.myeval",
            "numpy.matrix",
            "numpy.ndarray.tofile",
            "numpy.core.multiarray.fromfile",
            "torch._utils._rebuild_tensor_v2",
            "torch.load",
            "pandas.core.frame.DataFrame",
            "collections.OrderedDict",
            "mer_bench.data.restricted_pickle.load_restricted",
            "no_such_module.thing",
        ],
    )
    def test_any_other_name_is_refused_by_name(self, name: str) -> None:
        for data in (called(name, "touch /tmp/never"), called_by_stack(*name.rsplit(".", 1))):
            with pytest.raises(UnsafePickleError, match=f"asks for '{name}'"):
                read(data)

    def test_nothing_is_imported_or_run(self, tmp_path: Path) -> None:
        """In a process of its own, with the module at hand that the file asks for."""
        trace = tmp_path / "trace"
        (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w').close()\ndef spring(*_): pass\n")
        hostile = tmp_path / "hostile.pkl"
        hostile.write_bytes(called("trap.spring", "x"))
        code = (
            "import sys; from pathlib import Path; from mer_bench.data.restricted_pickle import load_restricted\n"
            "try: load_restricted(Path(sys.argv[1]))\n"
            "except Exception as error: print(type(error).__name__, 'trap' in sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(hostile)], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["UnsafePickleError", "False"]
        assert not trace.exists()

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize(
        "value",
        [
            OrderedDict(a=1),
            Counter("abc"),
            Decimal("1.5"),
            datetime.date(2020, 1, 1),
            Path("x"),
            range(3),
            slice(1),
            ValueError("x"),
            len,
            int,
            np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
            np.array(["2020-01-01"], dtype="M8[D]"),
            np.ma.masked_array([1, 2], [True, False]),
            np.random.default_rng(0),
            np.void(b"abc"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_objects_that_are_no_data(self, value: Any, protocol: int) -> None:
        with pytest.raises(UnsafePickleError):
            read(pickle.dumps([1, {"a": value}], protocol=protocol))

    @pytest.mark.parametrize(
        ("data", "asked"),
        [
            (b"(ios\nsystem\n.", "os.system"),
            (b"(S'ls'\nios\nsystem\n.", "os.system"),
            (b"cnumpy\nndarray\n.", "numpy.ndarray"),
            (b"(cnumpy\ndtype\nl.", "numpy.dtype"),
            (b"(cnumpy\nndarray\no.", "object"),
            (b"\x80\x02cnumpy\nndarray\n)\x81.", "object"),
            (b"\x80\x04cnumpy\nndarray\n)}\x92.", "object"),
            (b"\x80\x02\x82\x01.", "extension"),
            (b"\x80\x02\x83\x01\x00.", "extension"),
            (b"\x80\x02\x84\x01\x00\x00\x00.", "extension"),
            (b"P1\n.", "outside"),
            (b"K\x01Q.", "outside"),
            (b"\x80\x05\x97.", "outside"),
            (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "ndarray.tofile"),
        ],
        ids=repr,
    )
    def test_other_ways_to_ask(self, data: bytes, asked: str) -> None:
        with pytest.raises(UnsafePickleError, match=asked):
            read(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"c_codecs\nencode\n(VQQ==\nVbase64\ntR.",
            b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
            b"c_codecs\nencode\n(Vx\ntR.",
            b"cnumpy\ndtype\n(VO8\nI00\nI01\nVmore\ntR.",
            b"cnumpy\ndtype\n(Vi4,f8\nI00\nI01\ntR.",
            b"cnumpy\ndtype\n(V(1000000000,)f8\nI00\nI01\ntR.",
            b"cnumpy\ndtype\n(VU99999999999\nI00\nI01\ntR.",
            b"cnumpy\ndtype\n(VV8\nI00\nI01\ntR.",
            b"cnumpy\ndtype\n((lI00\nI01\ntR.",
            b"cnumpy\nndarray\n((I1000000000\nttR.",
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000\ntS'b'\ntR.",
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\nI00\nI01\ntR(ltR.",
            b"cnumpy.core.numeric\n_frombuffer\n(C\x08aaaaaaaacnumpy\ndtype\n(VO8\nI00\nI01\ntR(I1\ntVC\ntR.",
            b"cbuiltins\nbytes\n(I1000000000\ntR.",
            b"cbuiltins\nbytearray\n(I1000000000\ntR.",
            b"cbuiltins\ncomplex\n(V1\ntR.",
        ],
        ids=repr,
    )
    def test_admitted_names_take_no_other_values(self, data: bytes) -> None:
        with pytest.raises(UnsafePickleError):
            read(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"}(Va\nI1\nsb.",  # a dict's state
            b"]}b.",
            b"cnumpy\nndarray\n}b.",  # would set attributes of the class itself
            b"cnumpy.core.multiarray\nscalar\n(N}tb.",
            ARRAY + b"}b.",
            ARRAY + b"(I1\n(I2\ntcnumpy\ndtype\n(Vf8\nI00\nI01\ntRI00\nU\x08aaaaaaaatb.",  # too little content
            ARRAY + b"(I1\n(I1\ntcnumpy\ndtype\n(Vf8\nI00\nI01\ntRI00\nU\x08aaaaaaaatb(tb.",  # built twice
            ARRAY + b"(I1\n(I-1\nI-1\ntcnumpy\ndtype\n(Vf8\nI00\nI01\ntRI00\nU\x08aaaaaaaatb.",
            ARRAY + b"(I1\n(I9223372036854775807\nI2\ntcnumpy\ndtype\n(Vf8\nI00\nI01\ntRI00\nU\x00tb.",
            ARRAY
            + b"(I1\n(I1\ntcnumpy\ndtype\n(VO8\nI00\nI01\ntRI00\nU\x08aaaaaaaatb.",  # objects from bytes: pointers
            ARRAY + b"(I1\n(I2\ntcnumpy\ndtype\n(VO8\nI00\nI01\ntRI00\n(NltB.",
            ARRAY + b"(I1\n(I3\ntcnumpy\ndtype\n(VO8\nI00\nI01\ntRI00\n(Nltb.",
            ARRAY + b"(I1\n(I1\nI0\ntcnumpy\ndtype\n(VU0\nI00\nI01\ntRI00\nU\x00tb(tb.",
            ARRAY + b".",
            b"cnumpy\ndtype\n(Vf8\nI00\nI01\ntR(I3\nV<\nV<\nNNI1000\nI-1\nI0\ntb.",
            b"cnumpy\ndtype\n(Vf8\nI00\nI01\ntR(I3\nV<\nNN}I8\nI-1\nI0\ntb.",
        ],
        ids=repr,
    )
    def test_states_that_would_break_things(self, data: bytes) -> None:
        with pytest.raises(DataError):
            read(data)

    def test_a_size_claimed_by_a_types_state_is_not_believed(self) -> None:
        """numpy itself would believe it, and read a thousand bytes out of eight."""
        kind = b"cnumpy\ndtype\n(VS8\nI00\nI01\ntR(I3\nV|\nNNNI1000\nI1\nI0\ntb"
        assert pickle.loads(kind + b".").itemsize == 1000
        assert read(kind + b".").itemsize == 8

    @pytest.mark.parametrize("content", [b"", b"a" * 7, b"a" * 9])
    def test_a_number_has_the_bytes_of_its_type(self, content: bytes) -> None:
        kind = b"cnumpy\ndtype\n(Vf8\nI00\nI01\ntR"
        written = b"C" + bytes([len(content)]) + content
        with pytest.raises(DataError, match=f"of 8 bytes has {len(content)}"):
            read(b"cnumpy.core.multiarray\nscalar\n(" + kind + written + b"tR.")
        with pytest.raises(DataError, match=f"of 8 bytes has {len(content)}"):
            read(b"cnumpy.core.numeric\n_frombuffer\n(" + written + kind + b"(I1\ntVC\ntR.")

    def test_names_are_printed_without_tricks(self) -> None:
        with pytest.raises(UnsafePickleError) as caught:
            read(b"\x80\x04\x8c\x07a\x1b[2J\nb\x8c\x01c\x93.")
        assert "\x1b" not in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(UnsafePickleError) as caught:
            read(b"c" + b"m" * 100_000 + b"\nx\n.")
        assert len(str(caught.value)) < 400


class TestExhaustion:
    @pytest.fixture(autouse=True)
    def bounded(self) -> Any:
        """No case may take more than a moment or much memory."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        yield
        assert time.process_time() - started < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # KiB

    @pytest.mark.parametrize(
        "data",
        [
            b"\x80\x03B\xff\xff\xff\x7f",
            b"\x80\x03T\xff\xff\xff\x7f",
            b"\x80\x03T\xff\xff\xff\xff.",
            b"\x80\x03X\xff\xff\xff\xff",
            b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f",
            b"\x80\x04\x8e" + b"\xff" * 8,
            b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f",
            b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
            b"\x80\x02\x8b\xff\xff\xff\x7f",
            b"\x80\x02\x8b\xff\xff\xff\xff.",
            b"\x80\x02\x8b\x00\x10\x00\x00" + b"\x01" * 4096 + b".",
            b"I" + b"9" * 5000 + b"\n.",
            b"L" + b"9" * 5000 + b"L\n.",
        ],
        ids=repr,
    )
    def test_huge_counts(self, data: bytes) -> None:
        with pytest.raises(DataError):
            read(data)

    def test_a_huge_place_in_the_memo_costs_nothing(self) -> None:
        assert read(b"\x80\x02]r\xff\xff\xff\x7f0j\xff\xff\xff\x7f.") == []

    @pytest.mark.parametrize("depth", [100, 50_000])
    @pytest.mark.parametrize("kind", ["list", "tuple", "dict", "memo"])
    def test_deep_nesting(self, kind: str, depth: int) -> None:
        data = {
            "list": b"]" * depth + b"a" * (depth - 1) + b".",
            "tuple": b")" + b"\x85" * depth + b".",
            "dict": b"}" + b"K\x01}" * depth + b"s" * depth + b".",
            "memo": b"]q\x00q\x01" + b"]q\x02h\x01aq\x010" * depth + b"h\x01.",
        }[kind]
        with pytest.raises(DataError, match=r"nested|rightly hold|not a valid"):
            read(data)

    def test_the_depth_of_known_files_is_read(self) -> None:
        assert read(b"]" * 20 + b"a" * 19 + b".")

    def test_deep_keys(self) -> None:
        """Hashing such a tuple would exhaust the C stack."""
        with pytest.raises(DataError, match="key"):
            read(b"})" + b"\x85" * 200_000 + b"K\x01s.")

    @pytest.mark.parametrize("data", [b"]q\x00h\x00a.", b"}q\x00K\x01h\x00s.", b"]q\x00h\x00\x85a."], ids=repr)
    def test_a_value_that_holds_itself(self, data: bytes) -> None:
        with pytest.raises(DataError, match="itself"):
            read(data)

    def test_parts_that_unfold_without_end(self) -> None:
        """Fifty lists of ten times the one before: 600 bytes, 10^50 items."""
        layers = b"]q\x00" + b"".join(
            b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(50)
        )
        with pytest.raises(DataError, match="unfold"):
            read(layers + b".")

    LONG_TEXT = b"X\x00\x00\x10\x00" + b"x" * (1 << 20) + b"p1\n"
    LONG_LIST = b"](" + b"".join(b"J" + struct.pack("<i", number) for number in range(50_000)) + b"eq\x00"
    TO_ARRAY = b"cnumpy.core.numeric\n_frombuffer\n(h\x01cnumpy\ndtype\n(Vi1\nI00\nI01\ntR(I1048576\ntVC\ntR"

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"(" + b"\x8f" * 2_000_000 + b"t.", id="sets"),
            pytest.param(b"]" * 2_000_000 + b".", id="lists"),
            pytest.param(b"(" * 2_000_000 + b".", id="marks"),
            pytest.param(b"N" + b"\x94" * 1_000_000 + b".", id="memo"),
            # Each call would make another megabyte, or another set, of one and the same thing.
            pytest.param(LONG_TEXT + b"c_codecs\nencode\n(g1\nVlatin1\ntR" * 100_000 + b".", id="encode"),
            pytest.param(LONG_TEXT + TO_ARRAY * 50_000 + b".", id="frombuffer"),
            pytest.param(LONG_LIST + b"cbuiltins\nset\n(h\x00tR" * 100_000 + b".", id="set of list"),
        ],
    )
    def test_much_from_little(self, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(restricted_pickle, "MAX_MEMORY", 30 << 20)
        with pytest.raises(DataError, match="rightly hold"):
            read(data)

    def test_numbers_chosen_to_collide_are_no_keys(self) -> None:
        modulus = (1 << 61) - 1  # Python's: all multiples have one hash
        with pytest.raises(DataError, match="oversized"):
            read(pickle.dumps({modulus * number: 0 for number in range(1, 50)}))

    def test_a_file_over_the_limit_is_not_read(self, tmp_path: Path) -> None:
        file = tmp_path / "big.pkl"
        file.write_bytes(pickle.dumps(b"x" * 1000))
        assert load_restricted(file, max_bytes=2000) == b"x" * 1000
        with pytest.raises(DataError, match="100 are the most"):
            load_restricted(file, max_bytes=100)

    def test_no_file_is_awaited_forever(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="ordinary"):
            load_restricted(Path("/dev/zero"))
        with pytest.raises(DataError):
            load_restricted(tmp_path)
        with pytest.raises(MissingDataError):
            load_restricted(tmp_path / "none.pkl")


class TestDamage:
    VALUE = ({"dia0": ["a", "b"]}, [np.arange(3.0), np.float32(1)], {1, 2}, "ü", b"x", 1.5, None, 10**20)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_cut_off_anywhere(self, protocol: int) -> None:
        data = pickle.dumps(self.VALUE, protocol=protocol)
        for end in range(len(data)):
            with pytest.raises(DataError):
                read(data[:end])

    @settings(max_examples=400, deadline=None)
    @given(data=st.data(), protocol=st.sampled_from(PROTOCOLS))
    def test_changed_anywhere(self, data: st.DataObject, protocol: int) -> None:
        """Whatever is wrong, the answer is ours: a value or a DataError, nothing else."""
        stream = bytearray(pickle.dumps(self.VALUE, protocol=protocol))
        for _ in range(data.draw(st.integers(1, 3))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(DataError):
            read(bytes(stream))

    @settings(max_examples=200, deadline=None)
    @given(value=TestData.plain, protocol=st.sampled_from(PROTOCOLS), data=st.data())
    def test_lists_of_floats_come_back_as_arrays(self, value: Any, protocol: int, data: st.DataObject) -> None:
        """Packed or not, the same values, and the same answer to damage."""
        stream = pickle.dumps([value, [1.5] * 5, {"a": [0.5, float("nan")]}, (value, [2.0])], protocol=protocol)
        packed = loads_restricted(stream, "x.pkl", packed=True)
        assert same(without_arrays(packed), without_arrays(read(stream)))
        assert isinstance(packed[1], np.ndarray)
        assert isinstance(packed[3][1], list)
        changed = bytearray(stream)
        changed[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        answers = []
        for way in (False, True):
            try:
                answers.append(without_arrays(loads_restricted(bytes(changed), "x.pkl", packed=way)))
            except DataError as error:
                answers.append(type(error))
        assert same(*answers)

    @settings(max_examples=400, deadline=None)
    @given(
        stream=st.lists(
            st.sampled_from([*(bytes([code]) for code in range(256)), b"cnumpy\ndtype\n", ARRAY]), max_size=40
        )
    )
    def test_noise(self, stream: list[bytes]) -> None:
        with contextlib.suppress(DataError):
            read(b"".join(stream) + b".")
        with contextlib.suppress(DataError):
            loads_restricted(b"".join(stream) + b".", "x.pkl", packed=True)

    @settings(max_examples=400, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        with contextlib.suppress(DataError):
            loads_restricted(data, "x.pkl", packed=True)

    @pytest.mark.parametrize(
        "data", [b"", b"<html>not found</html>", b"version https://git-lfs", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"."]
    )
    def test_something_else(self, data: bytes) -> None:
        with pytest.raises(DataError):
            read(data)

    def test_the_place_is_named(self) -> None:
        with pytest.raises(DataError, match=r"x\.pkl is not a valid pickle: .*at byte 3"):
            read(b"\x80\x02]\xff.")
        with pytest.raises(DataError, match="a pickle at all"):
            read(b"\xff\xd8")
        with pytest.raises(DataError, match=r"x\.pkl ends in the middle, after 3 bytes"):
            read(b"\x80\x02]")


class TestFloats:
    """Lists of floats packed into arrays, where the stream does odd things with them."""

    def packed(self, data: bytes) -> Any:
        return loads_restricted(data, "x.pkl", packed=True)

    FLOATS = b"".join(b"G" + struct.pack(">d", number) for number in (1, 2, 3, 4))

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"](" + FLOATS + b"eq\x00(" + FLOATS + b"e.", [1.0, 2.0, 3.0, 4.0] * 2),
            (b"](" + FLOATS + b"eK\x07a.", [1.0, 2.0, 3.0, 4.0, 7]),
            (b"]K\x07a(" + FLOATS + b"e.", [7, 1.0, 2.0, 3.0, 4.0]),
            (b"](" + FLOATS + b"e(K\x01Neq\x00(" + FLOATS + b"e.", [1.0, 2.0, 3.0, 4.0, 1, None, 1.0, 2.0, 3.0, 4.0]),
            (b"(" + FLOATS + b"l.", [1.0, 2.0, 3.0, 4.0]),
            (b"(" + FLOATS + b"t.", (1.0, 2.0, 3.0, 4.0)),
            (b"](" + FLOATS + b"eq\x00\x85h\x00\x86.", (([1.0, 2.0, 3.0, 4.0],), [1.0, 2.0, 3.0, 4.0])),
            (b"](]q\x00(" + FLOATS + b"eh\x00h\x00e.", [[1.0, 2.0, 3.0, 4.0]] * 3),
            (b"cbuiltins\nset\n](" + FLOATS + b"e\x85R.", {1.0, 2.0, 3.0, 4.0}),
            (b"](]q\x00(" + FLOATS + b"eh\x00\x85e.", [[1.0, 2.0, 3.0, 4.0], ([1.0, 2.0, 3.0, 4.0],)]),
            (b"](]q\x00(" + FLOATS + b"e\x85h\x00e.", [([1.0, 2.0, 3.0, 4.0],), [1.0, 2.0, 3.0, 4.0]]),
            (b"}K\x01](" + FLOATS + b"es.", {1: [1.0, 2.0, 3.0, 4.0]}),
            (FLOATS + b".", 4.0),
            (b"(" + FLOATS + b"1N.", None),
        ],
        ids=repr,
    )
    def test_the_same_values(self, data: bytes, expected: Any) -> None:
        assert without_arrays(self.packed(data)) == expected
        assert read(data) == expected

    def test_shared_lists_are_one_array(self) -> None:
        found = self.packed(b"](]q\x00(" + self.FLOATS + b"eh\x00e.")
        assert found[0] is found[1]
        assert found[0].dtype == np.float64

    def test_a_list_of_objects_is_no_array(self) -> None:
        array = np.array([[1.5, 2.5], None], dtype=object)
        for protocol in PROTOCOLS:
            assert without_arrays(self.packed(pickle.dumps([array], protocol=protocol))[0][0]) == [1.5, 2.5]

    def test_cut_off_floats(self) -> None:
        for end in range(1, len(self.FLOATS)):
            with pytest.raises(DataError):
                self.packed(b"](" + self.FLOATS[:end])

    def test_unfolding_counts_what_is_packed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(restricted_pickle, "MAX_ITEMS", 1000)
        with pytest.raises(DataError, match="unfold"):
            self.packed(pickle.dumps([[float(number) for number in range(200)]] * 9))

    def test_a_large_file_is_given_back_while_it_is_read(self, tmp_path: Path) -> None:
        """And read right: what stands across the borders of what was given back, too."""
        random = np.random.default_rng(0)
        value = [random.normal(size=size).astype(np.float32) for size in random.integers(1, 40_000, 250)]
        value += [list(map(float, random.normal(size=1000))) for _ in range(100)]
        file = tmp_path / "large.pkl"
        file.write_bytes(pickle.dumps(value))
        assert file.stat().st_size > 3 * restricted_pickle._GIVEN_BACK
        assert same(load_restricted(file), value)
        for found, expected in zip(load_restricted(file, packed=True), value, strict=True):
            np.testing.assert_array_equal(found, expected)
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(DataError, match="in the middle"):
            load_restricted(file)


HOSTILE = {
    "os.system": called("os.system", "touch trace"),
    "eval": called("builtins.eval", "open('trace', 'w')"),
    "getattr": b"cbuiltins\ngetattr\n(cos\nsystem\nVx\ntR.",
    "nested": pickle.dumps([b"\x80\x02cos\nsystem\n(Vtouch trace\ntR."])[:-1] + b"cos\nsystem\n(Vtouch trace\ntR.",
    "laughs": b"]q\x00" + b"".join(b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(50)) + b".",
    "giant text": b"\x80\x04\x8d" + b"\xff" * 6 + b"\x00\x00" + b"x" * 1000,
    "deep": b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples": b")" + b"\x85" * 200_000 + b".",
    "memo": b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(300_000)) + b".",
    "array": ARRAY + b"(I1\n(I281474976710655\nI2\ntcnumpy\ndtype\n(Vf8\nI00\nI01\ntRI00\nU\x00tb.",
    "empty types": ARRAY + b"(I1\n(I281474976710655\ntcnumpy\ndtype\n(VS0\nI00\nI01\ntRI00\nU\x00tb.",
    "zip": b"PK\x03\x04" + b"x" * 1000,
    "gzip": b"\x1f\x8b\x08" + b"x" * 1000,
    "numbers": b"](" + b"G\x00\x00\x00\x00\x00\x00\x00\x00" * 100_000 + b"eq\x00" + b"](" + b"h\x00" * 10_000 + b"e.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_in_a_bounded_process(name: str, tmp_path: Path) -> None:
    """Refused, or a plain value, in one sentence: with little memory, no child, no file and little time."""
    (tmp_path / "x.pkl").write_bytes(HOSTILE[name])
    code = (
        "import resource, sys; from pathlib import Path; from mer_bench.data.restricted_pickle import load_restricted\n"
        "from mer_bench.errors import DataError\n"
        "def forbid(event, given):\n"
        "    wanted = ('open', 'exec', 'compile', 'import', 'os.', 'subprocess', 'socket', 'shutil')\n"
        "    if event.startswith(wanted) and str(given[:1]) != str((str(Path('x.pkl')),)):\n"
        "        sys.stderr.write(f'{event} {given}'[:300] + chr(10))\n"
        "import numpy as np; b'x'.decode('raw-unicode-escape')\n"
        "size = int(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmSize'))) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (400 << 20),) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20)); resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        "sys.addaudithook(forbid)\n"
        "try: load_restricted(Path('x.pkl'), packed=True)\n"
        "except DataError as error: print(error)\n"
        "else: print('a value')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("a value" if name == "memo" else "x.pkl")
    assert sorted(os.listdir(tmp_path)) == ["x.pkl"]  # noqa: PTH208


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("COSMIC/feature-extraction/meld/meld.pkl", 7),
        ("COSMIC/feature-extraction/meld/meld_sentences.pkl", None),
        ("COSMIC/feature-extraction/iemocap/iemocap.pkl", 6),
        ("COSMIC/feature-extraction/emorynlp/emorynlp.pkl", 6),
        ("dataset/IEMOCAP/IEMOCAP_features_raw_6way.pkl", 6),
    ],
)
def test_published_pickles(name: str, fields: int | None) -> None:
    files = sorted(PUBLISHED.glob(f"*/*/*/{name}"))
    if not files:
        pytest.skip(f"{name} is not in ../shared/data/published")
    found = load_restricted(files[0])
    assert fields is None or len(found) == fields
    # These very files come with the project's data and are pinned by checksum, so that unpickling is safe here.
    assert found == pickle.loads(files[0].read_bytes())
