"""The files of a plugin: one checksum of all that its code is, and its import without an installation.

A plugin that was never installed stands in `sys.modules` as `mer_bench_local.<name>_<digest>`. The digest
is that of its place and its content, so that two folders of one name, or two versions of one file, are two
packages. Its modules run from the bytes that the checksum was made of, whatever an editor writes meanwhile,
and nothing is written beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from mer_bench.errors import PluginError

LOCAL_PACKAGE = "mer_bench_local"
"""Under which plugins that are not installed stand in `sys.modules`."""

_NOT_CODE = (".md", ".pyc", ".pyo")


@dataclass(frozen=True)
class PluginFiles:
    """What a plugin was made of when it was read.

    Attributes:
        path: The file or the folder, absolute.
        sha256: Over the relative path and the content of every file that counts; see `code_files`.
        sources: Content of its Python files, by relative path.
    """

    path: Path
    sha256: str
    sources: Mapping[str, bytes]

    @property
    def package(self) -> str:
        """Import name of the plugin, where it is not installed."""
        digest = hashlib.sha256(f"{self.path}\n{self.sha256}".encode()).hexdigest()
        return f"{LOCAL_PACKAGE}.{module_name(self.path)}_{digest[:12]}"


def module_name(path: Path) -> str:
    """Name of a plugin's file or folder as a Python name: `my-model.py` is `my_model`."""
    return (path.stem if path.suffix == ".py" else path.name).replace("-", "_")


def absolute(path: Path) -> Path:
    """The same place as an absolute path without `..`; a link keeps its own name, which names the plugin."""
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (`resolve` would follow the link)


def code_files(folder: Path) -> Iterator[Path]:
    """The files that a plugin's folder is made of, in a fixed order.

    Those of the folder and of its sub-packages, whatever their kind, since code may read them too. Left out
    are hidden and compiled files, Markdown, and folders without an `__init__.py`: records may lie there.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "__pycache__")) or path.suffix in _NOT_CODE:
            continue
        if path.is_file():
            yield path
        elif (path / "__init__.py").is_file():
            yield from code_files(path)


def read_plugin_files(path: Path) -> PluginFiles:
    """Read a plugin that is a file, or all the files of one that is a folder; runs nothing.

    Raises:
        PluginError: If one of them cannot be read.
    """
    path = absolute(path)
    checksums, sources = {}, {}
    try:
        for file in [path] if path.is_file() else code_files(path):
            name = file.name if file == path else file.relative_to(path).as_posix()
            if file.suffix == ".py":
                sources[name] = file.read_bytes()
                checksums[name] = hashlib.sha256(sources[name]).hexdigest()
            else:
                with file.open("rb") as stream:
                    checksums[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise PluginError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from None
    return PluginFiles(path, hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest(), sources)


def make_importable(files: PluginFiles) -> None:
    """Let `import` find a plugin's modules under its `package`; of a file the one of `module_name`."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    package = files.package
    if files.path.is_file():
        (source,) = files.sources.values()
        _MODULES[package] = _Module(files.path, b"", is_package=True)
        _MODULES[f"{package}.{module_name(files.path)}"] = _Module(files.path, source)
        return
    for name, source in files.sources.items():
        *folders, last = name.removesuffix(".py").split("/")
        is_package = last == "__init__"
        dotted = ".".join([package, *folders, *([] if is_package else [last])])
        _MODULES[dotted] = _Module(files.path / name, source, is_package)


@dataclass(frozen=True)
class _Module:
    file: Path
    source: bytes
    is_package: bool = False


class _SourceLoader(SourceFileLoader):
    """Runs a module from the bytes that were read with its plugin; neither reads nor writes compiled files."""

    def __init__(self, name: str, module: _Module) -> None:
        super().__init__(name, str(module.file))
        self.module = module

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.module.source, self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    """Finds the modules of plugins that were made importable, and no other."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = _MODULES.get(fullname)
        if module is None:
            return None
        spec = spec_from_file_location(fullname, module.file, loader=_SourceLoader(fullname, module))
        if spec is not None and module.is_package:
            # A package without places: what was not read with it is not found on the disk either.
            spec.submodule_search_locations = []
        return spec


_MODULES: dict[str, _Module] = {LOCAL_PACKAGE: _Module(Path(__file__), b"", is_package=True)}
_FINDER = _Finder()


def failing_line(error: BaseException, files: PluginFiles) -> tuple[Path, int] | None:
    """The file and line of a plugin's own code where an error came from; None if it came from elsewhere."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _own(Path(error.filename), error.lineno, files)
    found = None
    trace: Any = error.__traceback__
    while trace is not None:
        found = _own(Path(trace.tb_frame.f_code.co_filename), trace.tb_lineno, files) or found
        trace = trace.tb_next
    return found


def _own(file: Path, line: int, files: PluginFiles) -> tuple[Path, int] | None:
    return (file, line) if file == files.path or file.is_relative_to(files.path) else None
