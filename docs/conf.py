"""How Sphinx builds the site: `tox -e docs`, strict, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs" / "extensions"))

import mer_bench  # noqa: E402 — the folder of the extensions must be on the path first

project = "mer-bench"
author = "the contributors of mer-bench"
copyright = author  # noqa: A001 — Sphinx wants this name
version = release = mer_bench.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "plugin_pages",
    "mathml",
    "shapes",
]
nitpicky = True
default_role = "code"
highlight_language = "text"  # of blocks that name none: shapes, layouts, trees
exclude_patterns = ["extensions", "static"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "fully-qualified"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names of other projects are not looked up, for that needs a network; names of ours must all be found.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!mer_bench(\.|$)).*"),
    (r"py:.*", r"mer_bench\..*\._\w+"),  # what is private is not in the reference
    (r"py:class", r"mer_bench\.\w+(\.\w+)*\.(SettingsType|CardType|Card|Subject)"),  # type variables
]

suppress_warnings = ["ref.python"]  # two rooms may each have a class of one name

html_theme = "furo"
html_title = f"mer-bench {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
