"""Write a model to start from: a file, a plugin folder, or a package around one."""

from __future__ import annotations

import ast
import keyword
from importlib.resources import files
from pathlib import Path
from typing import Literal

from mer_bench.atomic import write_files_atomically
from mer_bench.cards import is_identifier
from mer_bench.errors import RequestError
from mer_bench.registry import installed_models

Form = Literal["file", "folder", "package"]

LONGEST_NAME = 40
"""Up to which the lines of a template stay short enough to read."""

_SHELF = {
    f"your_model/{name}": f"shelf/your_model/{name}"
    for name in ("__init__.py", "card.toml", "config.py", "model.py", "README.md")
}
_FORMS: dict[Form, dict[str, str]] = {
    "file": {"your_model.py": "your_model.py"},
    "folder": _SHELF,
    "package": {
        **{f"your-model/{name}": f"package/{name}" for name in ("pyproject.toml", "README.md", "tox.ini")},
        "your-model/tests/test_models.py": "package/test_models.py",
        "your-model/src/your_model_shelf/__init__.py": "shelf/__init__.py",
        **{f"your-model/src/your_model_shelf/{target}": source for target, source in _SHELF.items()},
    },
}
"""By form, the template of each file that is written."""


def write_model(name: str, form: Form, parent: Path) -> tuple[Path, list[Path]]:
    """Write a model below a folder, as a whole or not at all.

    Returns:
        What `--plugin` takes, and every file that was written.

    Raises:
        RequestError: If no model can have the name, or there is something in its place.
        StorageError: If it cannot be written.
    """
    check_model_name(name)
    parent = parent.expanduser()
    top = parent / _named(next(iter(_FORMS[form])).split("/")[0], name)
    if top.exists() or top.is_symlink():
        raise RequestError(f"{top} is there already; choose another name, or another place with --folder.")
    texts = {parent / _named(target, name): _named(_template(source), name) for target, source in _FORMS[form].items()}
    write_files_atomically(top, texts)
    plugin = {"file": top, "folder": top, "package": top / "src" / _named("your_model_shelf", name)}[form]
    return plugin, list(texts)


def check_model_name(name: str) -> None:
    """Whether a new model can have a name.

    Raises:
        RequestError: If it cannot.
    """
    if not is_identifier(name) or not name[0].isalpha() or len(name) > LONGEST_NAME:
        raise RequestError(
            "a model's name starts with a letter and is made of lower-case letters, digits and hyphens between them, "
            f"at most {LONGEST_NAME} in all, as in my-model, but '{name}' was given."
        )
    taken = installed_models().plugins.get(name)
    if taken is not None:
        raise RequestError(f"{taken.place()} is a model called {name}; choose another name.")
    # `Batch`, `Model`, `Tensor`: a class of that name would hide what the code of the template uses.
    if keyword.iskeyword(name) or _class_name(name) in _names_in_use():
        raise RequestError(f"'{name}' stands for something else in Python code; choose another name, as {name}-net.")


def _named(text: str, name: str) -> str:
    """A template, or the name of one, under the model's own name."""
    words = name.replace("-", " ")
    for old, new in (
        ("your-model", name),
        ("your_model", name.replace("-", "_")),
        ("YourModel", _class_name(name)),
        ("Your model", words[0].upper() + words[1:]),
        ("your model", words),
    ):
        text = text.replace(old, new)
    return text


def _names_in_use() -> set[str]:
    return {node.id for node in ast.walk(ast.parse(_template("your_model.py"))) if isinstance(node, ast.Name)}


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _template(source: str) -> str:
    return (files("mer_bench.templates") / source).read_text(encoding="utf-8")
