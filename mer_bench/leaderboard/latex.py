r"""Tables as LaTeX, ready for a paper: `\usepackage{booktabs}` is all that it needs, with pdflatex or any other."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence, Set

from mer_bench.leaderboard import cells
from mer_bench.leaderboard.cells import COLUMNS, DASH
from mer_bench.leaderboard.markdown import seen
from mer_bench.leaderboard.table import Row, Table

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\`{}",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
}


def latex_of(table: Table) -> str:
    """The table of rows, and one of the classes: two floats.

    The leader's score is bold; rows of one rank are told apart by no test.
    """
    columns = [column for column in COLUMNS if column.paper]
    best = table.rows[0]
    rows = [
        [
            rf"\textbf{{{escaped(column.text(row))}}}"
            if row is best and column.short == "W-F1"
            else escaped(column.text(row))
            for column in columns
        ]
        for row in table.rows
    ]
    heads = [escaped(column.short) for column in columns]
    about = _about(table)
    first = _float(
        f"{escaped(cells.title(table.key))}. {about}",
        table.name,
        "".join("r" if column.number else "l" for column in columns),
        heads,
        rows,
        breaks=_breaks(table.rows),
    )
    classes = [
        [escaped(row.label), *(escaped(cells.percent(row.classes[name].f1)) for name in table.classes)]
        for row in table.rows
    ]
    second = _float(
        f"{escaped(cells.title(table.key))}: F1 of each class in percent, mean over the seeds.",
        f"{table.name}.classes",
        "l" + "r" * len(table.classes),
        ["model", *map(escaped, table.classes)],
        classes,
    )
    return "% \\usepackage{booktabs}\n" + first + "\n" + second


def escaped(value: str) -> str:
    """Text as itself: no letter of it is a command, and those that pdflatex cannot set are replaced."""
    return "".join(map(_letter, value))


def _letter(letter: str) -> str:
    if letter in _ESCAPED:
        return _ESCAPED[letter]
    if " " <= letter <= "~":
        return letter
    shown = seen(letter)
    if shown == " ":
        return " "
    # Accents of Latin letters are set as they are; of anything else its plain form, where it has one.
    if "\u00c0" <= letter <= "\u00ff" and letter.isalpha():
        return letter
    plain = unicodedata.normalize("NFKD", letter)
    return "".join(_ESCAPED.get(each, each) for each in plain if " " <= each <= "~") or "?"


def _about(table: Table) -> str:
    tested = (
        " W-F1: weighted F1, with its 95\\,\\% interval; rows of one rank are not separated by a paired bootstrap over "
        f"dialogues ({table.resamples:,} resamples, Holm's correction)."
        if table.pairs
        else " W-F1: weighted F1."
    )
    return (
        f"Scores in percent on {table.test_utterances:,} test utterances, means over the seeds ($\\pm$ standard "
        f"deviation).{tested} M-F1: macro F1; UAR: unweighted average recall; ECE: expected calibration error; shift: "
        f"accuracy where a speaker's emotion changes; {escaped(DASH)}: not measured."
    )


def _breaks(rows: Sequence[Row]) -> set[int]:
    """Before which rows another rank begins."""
    return {index for index in range(1, len(rows)) if rows[index].rank != rows[index - 1].rank}


def _float(
    caption: str,
    name: str,
    alignment: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    breaks: Set[int] = frozenset(),
) -> str:
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{_label(name)}}}",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for index, row in enumerate(rows):
        if index in breaks:
            lines.append(r"\addlinespace")
        lines.append(" & ".join(row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _label(name: str) -> str:
    """A name that `\\ref` can hold: letters, digits, dots and hyphens are all that a table's name has but `_`."""
    return name.replace("_", "-")
