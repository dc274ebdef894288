"""A made-up corpus and made-up models that a study searches."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.runner import RunRequest
from tests.trios import Place, place

__all__ = ["place"]

HEAD = """
    '''{title}'''
    # /// mer-bench
    # title   = "{title}"
    # summary = "Made up."
    # entry   = "{title}"
    # config  = "{title}Settings"
    # version = 1
    # modalities = ["text", "audio", "visual"]
    # causal = true
    # uses_speakers = false
    # speaker_symmetric = true
    # memory = "linear"
    # [settings.default]
    # epochs = 4
    # patience = 4
    # batch_size = 64
    # [settings.trios]
    # width = 12
    # learning_rate = 0.05
    # ///
    from __future__ import annotations
    import time
    from typing import Annotated, Literal
    import torch
    from torch import nn
    from mer_bench.api import Batch, Field, InputSpec, Model, Output, Settings, Tune, Wrapper, WrapperSettings
"""

SEARCHED = """
    class SearchedSettings(Settings):
        width: Annotated[int, Field(ge=1, le=512), Tune(low=16, high=64, step=16)] = 32
        kind: Annotated[Literal["sum", "gate", "both"], Tune()] = "sum"
        bias: Annotated[bool, Tune(when={"kind": "gate"})] = True
        size: Annotated[int, Field(ge=1, le=8), Tune(low=1, high=4, when={"bias": True})] = 2
        breaks: Annotated[str, Tune(choices=("", "nan"))] = ""
        seconds: float = 0.0

    class Searched(Model):
        def __init__(self, spec: InputSpec, settings: SearchedSettings) -> None:
            super().__init__(spec, settings)
            self.settings = settings
            self.name = spec.modalities[0]
            self.inside = nn.Linear(spec.widths[self.name], settings.width)
            self.output = nn.Linear(settings.width, spec.class_count)

        def forward(self, batch: Batch) -> Output:
            if self.settings.breaks == "memory":
                raise MemoryError
            if self.settings.breaks == "code":
                raise IndexError("no such row")
            if self.training:
                time.sleep(self.settings.seconds)
            logits = self.output(torch.tanh(self.inside(batch.features[self.name])))
            return Output(logits * float("nan") if self.settings.breaks == "nan" else logits)
"""

AROUND = """
    class AroundSettings(WrapperSettings):
        inner: str = "searched"
        width: Annotated[float, Field(ge=0, le=100), Tune(low=0.0, high=12.0, step=4.0)] = 4.0

    class Around(Wrapper):
        def forward(self, batch: Batch) -> Output:
            return self.inner(batch)
"""


@pytest.fixture(scope="module")
def models(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The models `searched` and `around`, a wrapper, beside the corpus `trios`."""
    folder = tmp_path_factory.mktemp("models")
    files = []
    for title, code in (("Searched", SEARCHED), ("Around", AROUND)):
        files.append(folder / f"{title.lower()}.py")
        files[-1].write_text(textwrap.dedent(HEAD.format(title=title)) + textwrap.dedent(code), encoding="utf-8")
        registry.add_plugin(files[-1])
    yield place
    for file in files:
        registry.remove_plugin(file)


@pytest.fixture
def run(models: Place, tmp_path: Path) -> RunRequest:
    """A request for the model `searched`."""
    return RunRequest("searched", "trios", data_root=models.data, out=tmp_path / "runs", threads=1)
