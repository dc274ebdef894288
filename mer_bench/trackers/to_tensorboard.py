"""TensorBoard: one folder of event files a run, written without TensorFlow and without torch.

<folder>/<dataset>/<model>.<features>.seed<seed>/<time>-<process>/events.out.tfevents.*

Scalars by epoch; settings as the hyper-parameters of its HParams page and as text; the record as text, which is the
artefact that TensorBoard can hold.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from mer_bench.trackers.tracker import Tracker, Value


class ToTensorBoard(Tracker):
    """Writes event files."""

    def begin(self, name: str, settings: Mapping[str, Value]) -> None:
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.writer = EventFileWriter(str(self.folder / name / stamp))
        self.step = 0
        started = SessionStartInfo(start_time_secs=time.time(), group_name=name)
        for key, value in settings.items():
            if isinstance(value, bool):
                started.hparams[key].bool_value = value
            elif isinstance(value, int | float):
                started.hparams[key].number_value = value
            else:
                started.hparams[key].string_value = str(value)
        self._hparams(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=started))
        rows = "".join(f"| {key} | {value} |\n" for key, value in settings.items())
        self._text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        self.step = step
        self._write([Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])

    def end(self, scores: Mapping[str, float], record: Path) -> None:
        self._write([Summary.Value(tag=tag, simple_value=value) for tag, value in scores.items()])
        # Indented, so that it is shown as it is.
        lines = json.dumps(json.loads(record.read_text(encoding="utf-8")), indent=1, ensure_ascii=False).splitlines()
        self._text(f"record/{record.name}", "\n".join(f"    {line}" for line in lines))
        self._finish(Status.STATUS_SUCCESS)

    def fail(self, reason: str) -> None:
        self._text("failure", reason)
        self._finish(Status.STATUS_FAILURE)

    def _finish(self, status: int) -> None:
        ended = SessionEndInfo(status=status, end_time_secs=time.time())
        self._hparams(hparams.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended))
        self.writer.close()

    def _text(self, tag: str, content: str) -> None:
        kind = text.create_summary_metadata(display_name="", description="")
        self._write([Summary.Value(tag=tag, metadata=kind, tensor=make_tensor_proto([content.encode()]))])

    def _hparams(self, tag: str, content: HParamsPluginData) -> None:
        content.version = hparams.PLUGIN_DATA_VERSION
        plugin = SummaryMetadata.PluginData(plugin_name=hparams.PLUGIN_NAME, content=content.SerializeToString())
        kind = SummaryMetadata(plugin_data=plugin)
        self._write([Summary.Value(tag=tag, metadata=kind, tensor=hparams.NULL_TENSOR)])

    def _write(self, values: list[Summary.Value]) -> None:
        self.writer.add_event(Event(wall_time=time.time(), step=self.step, summary=Summary(value=values)))
        self.writer.flush()
