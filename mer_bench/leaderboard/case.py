"""One record that is checked: its file, what was read of it, and whether its predictions give its scores."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mer_bench.errors import MerBenchError, RecordError
from mer_bench.leaderboard.findings import Finding, not_checked, passed, refused
from mer_bench.leaderboard.layout import Layout, layout_of
from mer_bench.leaderboard.plausibility import differing
from mer_bench.metrics import count_dialogues, score, score_folds
from mer_bench.predictions import Decoder, DialogueCounts, Predictions
from mer_bench.records import Record, predictions_file, read_record


@dataclass
class Case:
    """A record's file, what was read of it, and what was found.

    Attributes:
        text: Its content, as far as it can be read. outcomes: Its predictions; None where there are none.
    """

    file: Path
    is_trusted: bool
    text: str = ""
    record: Record | None = None
    outcomes: Predictions | DialogueCounts | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For sentences."""
        return self.file.stem

    @property
    def reasons(self) -> list[Finding]:
        """Why it is refused; empty where it is not."""
        return [each for each in self.findings if each.state == "refused"]

    @cached_property
    def layout(self) -> Layout | None:
        """Of its test split, where its predictions could be read."""
        return None if self.outcomes is None else layout_of(self.outcomes)

    def read(self) -> Record | None:
        """Read the record; None if it is not valid."""
        try:
            self.record = read_record(self.file)
            self.text = self.file.read_text(encoding="utf-8")
        except (MerBenchError, OSError, UnicodeDecodeError) as error:
            self.findings.append(refused("schema", str(error).rstrip(".")))
            return None
        self.findings.append(passed("schema", "a valid record"))
        return self.record

    def compare(self, record: Record, decoder: Decoder) -> None:
        """Read its predictions, and compare the two."""
        if record.predictions is None:
            self.findings += [not_checked(name, "the run failed") for name in ("predictions", "metrics")]
            return
        told = self._read_predictions(record, decoder)
        if told:
            self.findings += [refused("predictions", told), not_checked("metrics", "there are no valid predictions")]
            return
        self.findings.append(passed("predictions", "the file that the record was written with"))
        self.findings.append(self._check_metrics(record))

    def _read_predictions(self, record: Record, decoder: Decoder) -> str:
        """Read the predictions; returns what is wrong with them, or ""."""
        assert record.predictions is not None
        file = predictions_file(self.file.parent, self.file.stem)
        if not file.exists():  # then names are wrong, which is told of elsewhere
            file = self.file.with_name(record.predictions.file)
        try:
            content = file.read_bytes()
        except OSError as error:
            return f"{file.name} cannot be read: {error.strerror}; it should lie beside the record"
        checksum = hashlib.sha256(content).hexdigest()
        if checksum != record.predictions.sha256:
            return (
                f"{file.name} is not the file that the record was written with: its SHA-256 is {checksum[:12]}…, "
                f"and the record says {record.predictions.sha256[:12]}…"
            )
        try:
            self.outcomes = decoder.decode(content)
        except RecordError as error:
            return f"{file.name} is not valid: {str(error).rstrip('.')}"
        if self.outcomes.utterances != record.predictions.utterances:
            return (
                f"predictions.utterances is {record.predictions.utterances}, "
                f"but {file.name} has {self.outcomes.utterances}"
            )
        return ""

    def _check_metrics(self, record: Record) -> Finding:
        assert self.outcomes is not None
        assert record.test is not None
        counts = self.outcomes if isinstance(self.outcomes, DialogueCounts) else count_dialogues(self.outcomes)
        written = {"test": record.test} | {f"folds.{fold.fold}.test": fold.test for fold in record.folds}
        try:
            computed = {"test": score(counts)}
            if record.kind == "run":  # what others predicted for all folds is scored together
                computed |= {f"folds.{number}.test": found for number, found in score_folds(counts).items()}
        except RecordError as error:
            return refused("metrics", str(error).rstrip("."))
        if list(written) != list(computed):
            return refused(
                "metrics", f"the record has {len(record.folds)} folds, but its predictions have {len(computed) - 1}"
            )
        pairs = ((key, told.model_dump(), computed[key].model_dump()) for key, told in written.items())
        wrong = next(filter(None, (differing(*pair) for pair in pairs)), "")
        if wrong:
            return refused("metrics", f"{wrong} by its predictions: one of the two was changed after the run")
        return passed("metrics", "every test score is what the predictions give")
