"""The formats a run's model is exported in: a record each, which commands, errors, help, the card and the docs read.

What a record calls is imported when it is called, so that naming the formats loads no torch. A new format is a module
of this folder and a record in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gcl.errors import ConfigError, install, nearest
from gcl.exports.folder import EMBEDDINGS
from gcl.exports.settings import Precision

if TYPE_CHECKING:
    from gcl.model.dual_encoder import DualEncoder


class Loaded(Protocol):
    """An exported model as its user loads it: by the format's own library, on the CPU, in evaluation mode."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts, prompts not applied -> float32 [n, D], unit vectors."""

    def images(self, images: Sequence[bytes]) -> np.ndarray:
        """n encoded files of any mode -> float32 [n, D], unit vectors. A text encoder alone raises ValueError."""


@dataclass(frozen=True)
class Precisions:
    """What a format offers besides fp32.

    choices: all of them, fp32 first.
    add: (encoder, folder, precisions, images=encoded files of the catalog) -> notes for the card. Adds files.
    written: (folder) -> those that the folder holds, fp32 first.
    as_encoder: (Loaded, the run's model) -> a module that stands in for the run's model where tasks are measured.
    quality: the file of the folder that says what each precision loses.
    """

    choices: tuple[Precision, ...]
    add: Callable[..., list[str]]
    written: Callable[[Path], list[Precision]]
    as_encoder: Callable[[Loaded, DualEncoder], Any]
    quality: str


@dataclass(frozen=True)
class Format:
    """One format. All formats of an export are written into one folder, which is one repository of the Hub.

    name: the name in `formats=[…]`.
    writes: what is written, for help and docs.
    explanation: who loads it, in a sentence.
    marker: the file of an exported folder by which the format is recognised.
    write: (encoder in evaluation mode, folder that exists) -> notes, sentences for the card. Adds files; transformers
        replaces open_clip's tokenizer files by its own, which give the same ids to both.
    load: (folder) -> the model as a user loads it; with precisions: (folder, precision).
    snippet: (encoder, folder or Hub name) -> Python source that prints something, for the card; it is executed there.
    refuses: (encoder) -> None, or a sentence: why this architecture cannot be written in this format.
    library: its name on the Hub.
    rank: of the formats of a repository, the one with the lowest rank names the Hub's library.
    requires: packages (import names) that write, load and snippet need beyond gcl's own, and `extra` brings.
    extra: the extra of pyproject.toml that brings `requires`.
    precisions: what it offers besides fp32; None: nothing.
    compared: a sentence for the card about how its images were compared with the run's; may be empty.
    """

    name: str
    writes: str
    explanation: str
    marker: str
    write: Callable[[DualEncoder, Path], list[str]]
    load: Callable[..., Loaded]
    snippet: Callable[[DualEncoder, str], str]
    refuses: Callable[[DualEncoder], str | None]
    library: str
    rank: int
    requires: tuple[str, ...] = ()
    extra: str = "export"
    precisions: Precisions | None = None
    compared: str = ""

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        return [package for package in self.requires if find_spec(package) is None]

    def check_precisions(self, names: Sequence[str]) -> list[Precision]:
        """The precisions of these names. Raises ConfigError for an unknown one, and where fp32 is left out."""
        choices = self.precisions.choices if self.precisions else (Precision.fp32,)
        known = [choice.value for choice in choices]
        for name in names:
            if name not in known:
                raise ConfigError(f"{self.name}: there is no precision {name!r}.{nearest(name, known)}")
        if Precision.fp32.value not in names:
            raise ConfigError(
                f"{self.name}=[{','.join(names)}]: fp32 cannot be left out, the others are measured against it."
            )
        return [Precision(name) for name in names]

    def label(self, precision: Precision) -> str:
        """What reports call the files of this precision."""
        return self.name if precision is Precision.fp32 else f"{self.name} {precision.value}"

    def written(self, folder: Path) -> list[Precision]:
        """The precisions that an exported folder holds."""
        return self.precisions.written(folder) if self.precisions else [Precision.fp32]

    def load_as(self, folder: Path, precision: Precision) -> Loaded:
        return self.load(folder, precision.value) if self.precisions else self.load(folder)


def unit(vectors: np.ndarray) -> np.ndarray:
    """[n, D] -> float32 [n, D] of length 1."""
    vectors = np.asarray(vectors, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _later(name: str) -> Callable[..., Any]:
    """A function of a module of this folder, imported when it is called: `module:function`."""
    module, _, function = name.partition(":")

    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(f"gcl.exports.formats.{module}"), function)(*args, **options)

    return call


_ALL = (
    Format(
        name="open_clip",
        writes="open_clip_config.json, weights as safetensors, and the tokenizer's files",
        explanation="open_clip, and what is built on it, loads the folder or the repository by its name.",
        marker="open_clip_config.json",
        write=_later("open_clip:export_open_clip"),
        load=_later("open_clip:LoadedOpenClip"),
        snippet=_later("open_clip:snippet"),
        refuses=_later("open_clip:refuses"),
        library="open_clip",
        rank=3,
    ),
    Format(
        name="transformers",
        writes="SiglipModel or CLIPModel: config.json, model.safetensors, processor and tokenizer",
        explanation="AutoModel and AutoProcessor load it without remote code; so do most serving stacks.",
        marker="config.json",
        write=_later("transformers:export_transformers"),
        load=_later("transformers:LoadedTransformers"),
        snippet=_later("transformers:snippet"),
        refuses=_later("transformers:refuses"),
        library="transformers",
        rank=1,
        compared="Images that transformers would read differently were resized for it, as the notes above say.",
    ),
    Format(
        name="sentence_transformers",
        writes="modules.json and its modules around the transformers files, prompts included",
        explanation="SentenceTransformer loads it, for texts and images; vector databases integrate it.",
        marker="modules.json",
        write=_later("sentence_transformers:export_sentence_transformers"),
        load=_later("sentence_transformers:LoadedSentenceTransformers"),
        snippet=_later("sentence_transformers:snippet"),
        refuses=_later("sentence_transformers:refuses"),
        library="sentence-transformers",
        rank=2,
        requires=("sentence_transformers",),
        compared="Images that transformers would read differently were resized for it, as the notes above say.",
    ),
    Format(
        name="onnx",
        writes="onnx/: one graph per tower, a description of tokenizer and resizing, and the tokenizer's files",
        explanation="onnxruntime runs it without torch, on CPUs and in servers; fp16 and int8 are smaller and faster.",
        marker="onnx/config.json",
        write=_later("onnx:export_onnx"),
        load=_later("onnx_session:LoadedOnnx"),
        snippet=_later("onnx:snippet"),
        refuses=lambda encoder: None,
        library="onnx",
        rank=4,
        requires=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        precisions=Precisions(
            choices=tuple(Precision),
            add=_later("onnx:add_precisions"),
            written=_later("onnx_session:written_precisions"),
            as_encoder=_later("onnx:OnnxEncoder"),
            quality="onnx/quality.json",
        ),
    ),
)
# In the order in which they are written: later ones may rely on the files of earlier ones. `embeddings`, the vectors of
# a catalog, is not among them: gcl/exports/vectors/write.py writes it.
FORMATS: dict[str, Format] = {format.name: format for format in _ALL}


def supported(encoder: DualEncoder) -> list[str]:
    """The formats this architecture can be written in, installed or not."""
    return [name for name, format in FORMATS.items() if format.refuses(encoder) is None]


def choose(encoder: DualEncoder, wanted: Sequence[str] | None) -> list[Format]:
    """The formats to write, in their order; None: all that this architecture allows and whose packages are installed.

    Raises:
        ConfigError: an unknown format, one that this architecture does not allow, or one whose packages are missing.
    """
    if wanted is None:
        return [FORMATS[name] for name in supported(encoder) if not FORMATS[name].missing]
    check_formats(wanted)
    for name in wanted:
        if why := FORMATS[name].refuses(encoder):
            raise ConfigError(f"formats: {name} is not possible. {why} {_others(encoder)}")
    return [format for name, format in FORMATS.items() if name in wanted]


def check_formats(wanted: Sequence[str]) -> None:
    """Raises ConfigError for the first name that is no format, or whose packages are missing: before a model loads."""
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(f"formats: there is no format {name!r}.{nearest(name, [*FORMATS, EMBEDDINGS])}")
        if FORMATS[name].missing:
            needed = ", ".join(FORMATS[name].missing)
            raise ConfigError(
                f"formats: {name} needs {needed}, which is not installed: {install(FORMATS[name].extra)}."
            )


def left_out(encoder: DualEncoder) -> list[str]:
    """A sentence for every format that `choose(encoder, None)` leaves out."""
    sentences = []
    for name, format in FORMATS.items():
        if why := format.refuses(encoder):
            sentences.append(f"Without {name}: {why}")
        elif format.missing:
            sentences.append(f"Without {name}: {', '.join(format.missing)} is not installed ({install(format.extra)}).")
    return sentences


def _others(encoder: DualEncoder) -> str:
    names = supported(encoder)
    return f"Formats that work with it: {', '.join(names)}." if names else "No format works with it."
