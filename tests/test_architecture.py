"""Imports point one way, and nothing is called utils: the room plan, read from the code with `ast`.

The functions below look at any tree laid out as this repository; the tests run them on this one,
and on a small one that breaks each rule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("atomic",),
    ("config", "cards", "plugin_files", "records", "predictions", "seeding", "locations", "claim"),
    ("registry", "metrics", "identity"),
    ("model_settings",),
    ("data",),
    ("nn", "statistics"),
    ("leaderboard",),
    ("api", "request"),
    ("own",),
    ("compiling",),
    ("trainer", "checkpoint", "recording", "audit"),
    ("unfinished",),
    ("runner", "external"),
    ("tuning", "sweep", "ablation", "trackers", "testing", "applying", "doctor", "stacking"),
    ("templates",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Rooms of `mer_bench/`, the lowest first. A room imports only rooms of lower layers."""

LAYER = {room: index for index, layer in enumerate(LAYERS) for room in layer}

WITHOUT_TORCH = {"errors", "atomic", "config", "cards", "records", "predictions", "registry", "metrics", "locations"}
WITHOUT_TORCH |= {"claim", "identity", "model_settings", "plugin_files", "statistics", "leaderboard", "external"}
"""Rooms that list, score and rank: they must work, and be quick, where no torch is imported."""

WITHOUT_DATA = {"statistics", "leaderboard"}
"""Rooms that see records and predictions alone."""

FOR_MODELS = {"api", "config", "errors", "nn"}
FOR_DATASETS = FOR_MODELS | {"data"}

FORBIDDEN_WORDS = {"util", "utils", "misc", "helper", "helpers", "manager", "common"}


def modules(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def imports(file: Path, package: tuple[str, ...]) -> Iterator[tuple[int, str, str]]:
    """Every import of a module, inside functions too: line, module in full, name taken from it or "".

    Args:
        package: Names of the package that the module is in, from the top.
    """
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                yield node.lineno, base, name.name
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield node.lineno, str(argument.value), ""


def room_of(module: str, name: str) -> str | None:
    """The room of `mer_bench` that an import reaches; None for anything else."""
    parts = module.split(".")
    if parts[0] != "mer_bench":
        return None
    if len(parts) > 1:
        return parts[1]
    # `from mer_bench import registry` reaches that room; `__version__` belongs to no room.
    return name if name in LAYER else None if name == "__version__" else "__init__"


def wrong_arrows(root: Path) -> list[str]:
    """Imports between the rooms of the core that point up or sideways, and rooms without a layer."""
    found = []
    for file in modules(root / "mer_bench"):
        parts = file.relative_to(root / "mer_bench").with_suffix("").parts
        room = parts[0]
        if room not in LAYER:
            found.append(f"{file.relative_to(root)}: the room {room} has no layer")
            continue
        package = ("mer_bench", *parts[:-1])
        for line, module, name in imports(file, package):
            place = f"{file.relative_to(root)}:{line}"
            top = module.split(".")[0]
            if top in ("mer_bench_models", "mer_bench_datasets", "models", "datasets"):
                found.append(f"{place}: the core imports the plugins' {module}; ask the registry")
            if top == "rich" and parts != ("cli", "console"):
                found.append(f"{place}: only cli/console.py knows rich")
            if top == "typer" and room != "cli":
                found.append(f"{place}: only cli/ knows typer")
            if top in ("torch", "torch_geometric") and room in WITHOUT_TORCH:
                found.append(f"{place}: {room} must do without torch")
            reached = room_of(module, name)
            if reached is None or reached == room:
                continue
            if reached not in LAYER:
                found.append(f"{place}: imports the room {reached}, which has no layer")
            elif LAYER[reached] >= LAYER[room]:
                found.append(f"{place}: {room} imports {reached}, which is not below it")
            elif reached == "data" and room in WITHOUT_DATA:
                found.append(f"{place}: {room} must do without data")
    return found


def wrong_plugin_imports(root: Path) -> list[str]:
    """Imports of built-in plugins that reach past the rooms open to them, or into another plugin."""
    found = []
    for kind, allowed in (("models", FOR_MODELS), ("datasets", FOR_DATASETS)):
        for file in modules(root / kind):
            parts = file.relative_to(root / kind).parts
            package = (f"mer_bench_{kind}", *parts[:-1])
            for line, module, name in imports(file, package):
                place = f"{file.relative_to(root)}:{line}"
                top, *rest = module.split(".")
                if top == "mer_bench":
                    reached = room_of(module, name)
                    if reached is not None and reached not in allowed:
                        found.append(f"{place}: a plugin in {kind} must not import mer_bench.{reached}")
                elif top in ("mer_bench_models", "mer_bench_datasets"):
                    if top != package[0] or rest[:1] != list(parts[:1]):
                        found.append(f"{place}: a plugin must not import another ({module})")
                elif top in ("models", "datasets"):
                    found.append(f"{place}: {top}/ is a folder, not a package")
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                own = f"mer_bench_{kind}."
                if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith(own):
                    found.append(f"{file.relative_to(root)}:{node.lineno}: a plugin imports its own files relatively")
    return found


def wrong_names(root: Path) -> list[str]:
    """Files and classes whose name says nothing."""
    found = []
    for folder in ("mer_bench", "models", "datasets", "tests"):
        for file in modules(root / folder):
            place = file.relative_to(root)
            for part in place.with_suffix("").parts:
                if FORBIDDEN_WORDS & set(part.lower().split("_")):
                    found.append(f"{place}: {part} says nothing; name the idea")
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name.lower().endswith(tuple(FORBIDDEN_WORDS)):
                    found.append(f"{place}:{node.lineno}: {node.name} says nothing; name the idea")
    return found


def wrong_folders(root: Path) -> list[str]:
    """Files that are there and should not be, or the other way round."""
    found = []
    for kind in ("models", "datasets"):
        if (root / kind / "__init__.py").exists():
            found.append(f"{kind}/__init__.py would hide an installed library of that name; put py.typed there")
        if not (root / kind / "py.typed").exists():
            found.append(f"{kind}/py.typed is missing")
        for folder in sorted(folder for folder in (root / kind).iterdir() if folder.is_dir()):
            if folder.name == "__pycache__" or not any(folder.rglob("*.*")) or folder.name.endswith(".egg-info"):
                continue
            for name in ("__init__.py", "card.toml", "README.md"):
                if not (folder / name).is_file():
                    found.append(f"{kind}/{folder.name}/{name} is missing")
            if not (folder / "__init__.py").is_file():
                continue
            body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
            if len(body) != 1 or not isinstance(body[0], ast.Expr):
                found.append(f"{kind}/{folder.name}/__init__.py should hold a docstring and nothing else")
    return found


def test_imports_point_one_way() -> None:
    assert wrong_arrows(ROOT) == []


def test_plugins_import_only_what_is_open_to_them() -> None:
    assert wrong_plugin_imports(ROOT) == []


def test_every_name_says_something() -> None:
    assert wrong_names(ROOT) == []


def test_plugin_folders_are_complete() -> None:
    assert wrong_folders(ROOT) == []


def test_every_room_is_in_one_layer() -> None:
    assert sum(len(layer) for layer in LAYERS) == len(LAYER)


def tree(root: Path, files: dict[str, str]) -> Path:
    """A small repository in which nothing is wrong but what `files` brings in."""
    sound = {
        "mer_bench/__init__.py": '__version__ = "1"',
        "mer_bench/errors.py": "",
        "mer_bench/registry.py": "from mer_bench import __version__\nfrom mer_bench.errors import X",
        "mer_bench/data/__init__.py": "",
        "mer_bench/data/store.py": "from mer_bench.data import files\nfrom . import other\nimport mer_bench.registry",
        "mer_bench/runner.py": "def run():\n    import torch\n    from mer_bench.trainer import train",
        "mer_bench/cli/console.py": "import rich",
        "models/py.typed": "",
        "models/gru/__init__.py": '"""A network."""',
        "models/gru/card.toml": "",
        "models/gru/README.md": "",
        "models/gru/model.py": "import torch\nfrom mer_bench.api import Model\nfrom .config import GruSettings",
        "models/gru/config.py": "from mer_bench.config import Settings",
        "datasets/py.typed": "",
        "datasets/meld/__init__.py": '"""A corpus."""',
        "datasets/meld/card.toml": "",
        "datasets/meld/README.md": "",
        "datasets/meld/reader.py": "from mer_bench.data.tables import read_table\nfrom mer_bench.api import Dataset",
        "tests/test_runner.py": "from mer_bench_models.gru.model import Gru",
    }
    for name, text in {**sound, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def faults(root: Path) -> list[str]:
    return [*wrong_arrows(root), *wrong_plugin_imports(root), *wrong_names(root), *wrong_folders(root)]


def test_sound_tree_has_no_fault(tmp_path: Path) -> None:
    assert faults(tree(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("mer_bench/errors.py", "from mer_bench.config import Settings", "errors.py:1: errors imports config, which"),
        ("mer_bench/metrics.py", "from mer_bench import registry", "metrics.py:1: metrics imports registry"),
        ("mer_bench/registry.py", "import mer_bench.api", "registry.py:1: registry imports api"),
        ("mer_bench/registry.py", "from . import api", "registry.py:1: registry imports api"),
        ("mer_bench/registry.py", "def f():\n    from .api import Model", "registry.py:2: registry imports api"),
        ("mer_bench/data/store.py", "from ..nn.graph import X", "store.py:1: data imports nn"),
        (
            "mer_bench/data/store.py",
            "import importlib\nimportlib.import_module('mer_bench.cli')",
            ":2: data imports cli",
        ),
        ("mer_bench/registry.py", "import mer_bench", "registry.py:1: registry imports __init__"),
        ("mer_bench/helpful.py", "", "mer_bench/helpful.py: the room helpful has no layer"),
        ("mer_bench/cli/run.py", "from mer_bench.nowhere import X", "the room nowhere, which has no layer"),
        ("mer_bench/runner.py", "import mer_bench_models.gru", "the core imports the plugins'"),
        ("mer_bench/runner.py", "from datasets import meld", "the core imports the plugins'"),
        ("mer_bench/cli/run.py", "from rich.table import Table", "only cli/console.py knows rich"),
        ("mer_bench/runner.py", "import typer", "only cli/ knows typer"),
        ("mer_bench/metrics.py", "def f():\n    import torch", "metrics must do without torch"),
        ("mer_bench/leaderboard/build.py", "from mer_bench.data.store import Store", "must do without data"),
        ("models/gru/model.py", "from mer_bench.trainer import Trainer", "must not import mer_bench.trainer"),
        ("models/gru/model.py", "from mer_bench.data.store import Store", "must not import mer_bench.data"),
        ("models/gru/model.py", "from mer_bench import run", "must not import mer_bench.__init__"),
        ("models/gru/model.py", "from mer_bench_models.cmath.model import X", "must not import another"),
        ("models/gru/model.py", "from ..cmath.model import X", "must not import another"),
        ("models/gru/model.py", "from mer_bench_models.gru.config import X", "imports its own files relatively"),
        ("datasets/meld/reader.py", "from mer_bench.registry import models", "must not import mer_bench.registry"),
        ("datasets/meld/reader.py", "import mer_bench_models.gru", "must not import another"),
        ("mer_bench/data/utils.py", "", "utils says nothing"),
        ("models/gru/graph_helpers.py", "", "graph_helpers says nothing"),
        ("mer_bench/runner.py", "class BaseRunManager: pass", "BaseRunManager says nothing"),
        ("models/__init__.py", "", "models/__init__.py would hide"),
        ("datasets/new/reader.py", "", "datasets/new/card.toml is missing"),
        ("models/gru/__init__.py", "from .model import Gru", "a docstring and nothing else"),
    ],
)
def test_fault_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    found = faults(tree(tmp_path, {file: text}))
    assert any(fault in sentence for sentence in found), found


def test_tests_are_no_package() -> None:
    # An `__init__.py` there would put the repository's root before the installed copy.
    assert not list((ROOT / "tests").rglob("__init__.py"))
