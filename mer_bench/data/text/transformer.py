"""A pre-trained transformer as it is: the mean of its last four layers, over the tokens of the utterance.

Any encoder that the library transformers loads will do, by its name on the hub (`NAME`, or `NAME@REVISION`) or
by the folder it was saved in; those of sentence-transformers load in the same way. Nothing of it is trained,
so the labels have no part in it; each column is brought to mean 0 and deviation 1 over the train split.

The model is not kept with the store. Its name and revision are, or the checksums of its files where it came
from a folder, and encoding new dialogues asks for the same one.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mer_bench.config import Settings
from mer_bench.data.files import sha256_of_file
from mer_bench.data.text.encoding import Arrays, Features, TextEncoder, TrainTexts, mean_and_deviation, option
from mer_bench.data.text.tokens import normalise
from mer_bench.errors import DataError, MissingDataError, RequestError

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformerSettings(Settings):
    """How a transformer's answers become features.

    Attributes:
        layers: Hidden layers, the last ones, whose mean is taken; all where a model has fewer.
        batch_size: Texts that are encoded at once; it changes nothing but speed and memory.
        longest: Tokens of a text that are read at most; the model's own limit where that is lower.
        precision: Of the weights; half precision saves memory and changes the numbers.
    """

    layers: int = 4
    batch_size: int = 32
    longest: int = 512
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True)
class ModelIdentity:
    """Which model it is.

    Attributes:
        name: On the hub, or the last part of the folder's path.
        revision: Commit on the hub; "" for a folder.
        files: SHA-256 of each file of a folder, by name; empty for a model of the hub.
    """

    name: str
    revision: str
    files: Mapping[str, str]


class LoadedModel:
    """A transformer that is ready to encode, on the GPU where there is one.

    Args:
        given: Folder, NAME or NAME@REVISION.

    Raises:
        RequestError: If the library is not installed.
        MissingDataError: If there is no such model, or the hub cannot be reached.
        DataError: If a folder holds no such model, or one that has no hidden layers.
    """

    def __init__(self, given: str, settings: TransformerSettings) -> None:
        if importlib.util.find_spec("transformers") is None:
            raise RequestError(
                "transformer features need the library transformers, which is not installed. Install it with: "
                "python -m pip install 'mer-bench[transformers]'"
            )
        import transformers

        self.settings = settings
        folder = Path(given).expanduser()
        local = folder.is_dir()
        name, _, revision = given.partition("@")
        place = str(_weights_folder(folder)) if local else name
        how: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision or None}
        with _quiet(transformers, bars=not local):
            try:
                # The configuration first: where no hub answers, one file is asked for and not all of them.
                config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, **how)
                self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False, **how)
                model: Any = transformers.AutoModel.from_pretrained(
                    place, config=config, dtype=_PRECISIONS[settings.precision], trust_remote_code=False, **how
                )
            except Exception as error:  # the library raises a dozen kinds, each of which means the same here
                raise _not_loaded(given, local, error) from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).eval()
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        commit = "" if local else str(getattr(config, "_commit_hash", None) or revision)
        self.identity = ModelIdentity(
            name=folder.resolve().name if local else name,
            revision=commit,
            files=_checksums(Path(place)) if local else {},
        )

    @property
    def longest(self) -> int:
        """Tokens of a text that are read at most, those included that the tokenizer adds."""
        # Some models count positions from behind the padding's, which costs up to two of them.
        positions = getattr(self.model.config, "max_position_embeddings", None)
        own = [positions - 2] if isinstance(positions, int) and positions > 2 else []
        limit: int = min([self.settings.longest, self.tokenizer.model_max_length, *own])
        return limit

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, those included that the tokenizer adds, none cut off."""
        if not texts:
            return []
        with _no_length_warning(self.tokenizer):
            found: list[list[int]] = self.tokenizer(list(texts), truncation=False, padding=False)["input_ids"]
        return found

    def encode(self, texts: Sequence[str]) -> tuple[Features, NDArray[np.bool_]]:
        """Mean of the last layers over the tokens of each text: (texts, width), and which texts have any: (texts,).

        Texts of like length are encoded together; neither the batch nor the order changes a text's features
        beyond rounding.
        """
        clean = [normalise(text) for text in texts]
        lengths = np.array([min(len(ids), self.longest) for ids in self.token_ids(clean)], dtype=np.int64)
        features = np.zeros((len(clean), self._width()), dtype=np.float32)
        order = np.argsort(-lengths, kind="stable")
        order = order[lengths[order] > 0]
        for start in range(0, len(order), self.settings.batch_size):
            rows = order[start : start + self.settings.batch_size]
            features[rows] = self._means([clean[row] for row in rows.tolist()])
        if not np.isfinite(features).all():
            raise DataError(
                f"the transformer {self.identity.name} gives values that are not finite in {self.settings.precision}."
            )
        return features, lengths > 0

    def _width(self) -> int:
        config = self.model.config
        return int(getattr(config, "hidden_size", None) or config.d_model)

    def _means(self, texts: list[str]) -> Features:
        tokens = self.tokenizer(texts, truncation=True, max_length=self.longest, padding=True, return_tensors="pt")
        tokens = {name: tensor.to(self.device) for name, tensor in tokens.items()}
        with torch.inference_mode():
            answer = self.model(**tokens, output_hidden_states=True)
            # The first of the hidden states is the embedding, which is no layer.
            layers = torch.stack(
                answer.hidden_states[1:][-self.settings.layers :]
            ).float()  # (layers, texts, tokens, w)
            real = tokens["attention_mask"].to(layers.dtype)[:, :, None]  # (texts, tokens, 1)
            means = (layers.mean(dim=0) * real).sum(dim=1) / real.sum(dim=1)  # (texts, width)
        found: Features = means.cpu().numpy()
        return found


@dataclass(frozen=True)
class TransformerEncoder(TextEncoder):
    """A transformer's means, standardised.

    Attributes:
        loaded: The model.
    """

    loaded: LoadedModel
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def fit(
        cls, train: TrainTexts, options: Mapping[str, Any], settings: TransformerSettings | None = None
    ) -> tuple[TransformerEncoder, Features]:
        given = str(option(options, "transformer", "a transformer, a folder or a name on the hub"))
        loaded = LoadedModel(given, settings or TransformerSettings())
        means, known = loaded.encode(train.texts)
        if not known.any():
            raise DataError("the train split has not one token to encode.")
        mean, deviation = mean_and_deviation(means[known])
        encoder = cls(loaded, {"mean": mean, "deviation": deviation})
        return encoder, encoder._scaled(means, known)

    def transform(self, texts: Sequence[str]) -> Features:
        return self._scaled(*self.loaded.encode(texts))

    def _scaled(self, means: Features, known: NDArray[np.bool_]) -> Features:
        scaled = (means - self.arrays["mean"]) / self.arrays["deviation"]
        scaled[~known] = 0
        found: Features = scaled.astype(np.float32)
        return found

    def blocks(self) -> dict[str, int]:
        return {"transformer": len(self.arrays["mean"])}

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        identity = self.loaded.identity
        return dict(self.arrays), {
            "settings": self.loaded.settings.model_dump(mode="json"),
            "model": identity.name,
            "revision": identity.revision,
            "files": dict(identity.files),
        }

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TransformerEncoder:
        """The encoder that `state` describes; a model of the hub is found by itself.

        Raises:
            MissingDataError: If the model came from a folder and no option says where that is.
            DataError: If the model is not the one that made the features.
        """
        given = options.get("transformer")
        if given is None and values["files"]:
            raise MissingDataError(
                f"the features were made with the transformer {values['model']} from a folder. Say where it is with: "
                "--transformer FOLDER"
            )
        hub = f"{values['model']}@{values['revision']}".removesuffix("@")
        loaded = LoadedModel(str(given or hub), TransformerSettings.model_validate(values["settings"]))
        found = loaded.identity
        if (dict(found.files), found.revision) != (dict(values["files"]), values["revision"]):
            changed = sorted(
                name for name in {*found.files, *values["files"]} if found.files.get(name) != values["files"].get(name)
            )
            differs = f"its file {changed[0]} differs" if changed else f"its revision is {found.revision or 'unknown'}"
            raise DataError(f"the transformer {given or hub} is not the one that made the features: {differs}.")
        return cls(loaded, arrays)

    def noticed(self, texts: Sequence[str]) -> dict[str, int | float]:
        longest = self.loaded.longest
        cut = sum(len(ids) > longest for ids in self.loaded.token_ids([normalise(text) for text in texts]))
        return {f"texts cut to the transformer's {longest} tokens": cut} if cut else {}


def _weights_folder(folder: Path) -> Path:
    """Where the transformer itself lies in a folder: sentence-transformers may keep it in a folder below."""
    modules = folder / "modules.json"
    if (folder / "config.json").is_file() or not modules.is_file():
        return folder
    try:
        below = folder / str(json.loads(modules.read_text(encoding="utf-8"))[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{modules} does not say where the transformer is: {error}.") from None
    return below if below.is_dir() else folder


def _checksums(folder: Path) -> dict[str, str]:
    kept = {".json", ".txt", ".model", ".safetensors", ".bin", ".pt"}
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in kept)
    return {file.name: sha256_of_file(file) for file in files}


def _not_loaded(given: str, local: bool, error: Exception) -> RequestError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if local:
        return DataError(f"the folder {given} holds no transformer that can be loaded: {reason}.")
    return MissingDataError(
        f"the transformer '{given}' cannot be loaded: {reason}. Give a folder that it was saved in, or its name on a "
        "hub that can be reached."
    )


@contextmanager
def _quiet(transformers: Any, bars: bool) -> Iterator[None]:
    """Without the libraries' remarks on layers that features do not need and on each try to connect.

    Args:
        bars: Whether their progress bars stay: a download may take long.
    """
    own, hub = transformers.utils.logging, logging.getLogger("huggingface_hub")
    level, hub_level, had_bars = own.get_verbosity(), hub.level, own.is_progress_bar_enabled()
    own.set_verbosity_error()
    hub.setLevel(logging.ERROR)
    if not bars:
        own.disable_progress_bar()
    try:
        yield
    finally:
        own.set_verbosity(level)
        hub.setLevel(hub_level)
        if had_bars:
            own.enable_progress_bar()


@contextmanager
def _no_length_warning(tokenizer: Any) -> Iterator[None]:
    """Without the remark that a text is longer than the model reads: it is counted and told as a note."""
    longest = tokenizer.model_max_length
    tokenizer.model_max_length = int(1e30)
    try:
        yield
    finally:
        tokenizer.model_max_length = longest
