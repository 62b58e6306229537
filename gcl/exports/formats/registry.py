"""The formats a run's model is exported in: a record each, which commands, errors, help, the card and the docs read.

What a record calls is imported when it is called, so that naming the formats loads no torch. A new format is a module
of this folder and a record in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gcl.errors import ConfigError, install, missing_of, nearest
from gcl.exports.folder import EMBEDDINGS
from gcl.exports.node import TRANSFORMERS_JS, node_package
from gcl.exports.settings import Precision
from gcl.lazy import later, load

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
    """What a format offers besides fp32. written: (folder) -> those that the folder holds, fp32 first."""

    written: Callable[[Path], list[Precision]]


@dataclass(frozen=True)
class Reduced(Precisions):
    """Those of a format that makes them; the formats that need it (`Format.needs`) have them from it.

    add: (encoder, folder, precisions, images=encoded files of the catalog) -> notes for the card. Adds files.
    as_encoder: (Loaded, the run's model) -> a module that stands in for the run's model where tasks are measured.
    quality: the file of the folder that says what each precision loses.
    """

    add: Callable[..., list[str]]
    as_encoder: Callable[[Loaded, DualEncoder], Any]
    quality: str


@dataclass(frozen=True)
class Format:
    """One format. All formats of an export are written into one folder, which is one repository of the Hub.

    name: the name in `formats=[…]`, and of the module of this folder that has its functions `export_<name>`, `snippet`
        and, where an architecture may be refused, `refuses`.
    writes: what is written, for help and docs.
    explanation: who loads it, in a sentence.
    marker: the file of an exported folder by which the format is recognised.
    load: (folder) -> the model as a user loads it; with precisions: (folder, precision).
    library: its name on the Hub; "" for one that no Hub knows.
    rank: of the formats of a repository, the one with the lowest rank names the Hub's library.
    requires: packages (import names) that write, load and snippet need beyond gcl's own, and `extra` brings; those of
        node begin with their scope, @huggingface/….
    extra: the extra of pyproject.toml that brings `requires`.
    needs: formats whose files it is made of or shares: they are written with it, and before it.
    on_request: written only where it is named, because it repeats the weights of others.
    language: of the snippet, as Markdown calls it.
    precisions: what it offers besides fp32; None: nothing.
    compared: a sentence for the card about how its images were compared with the run's; may be empty.
    """

    name: str
    writes: str
    explanation: str
    marker: str
    load: Callable[..., Loaded]
    library: str
    rank: int
    requires: tuple[str, ...] = ()
    extra: str = "export"
    needs: tuple[str, ...] = ()
    on_request: bool = False
    language: str = "python"
    precisions: Precisions | None = None
    compared: str = ""

    def write(self, encoder: DualEncoder, folder: Path) -> list[str]:
        """Adds files of a model in evaluation mode to a folder that exists; returns notes, sentences for the card.
        transformers replaces open_clip's tokenizer files by its own, which give the same ids to both."""
        return load(f"gcl.exports.formats.{self.name}:export_{self.name}")(encoder, folder)

    def snippet(self, encoder: DualEncoder, place: str) -> str:
        """A program that prints something, for the card, where it is executed. place: the folder, or its Hub name."""
        return load(f"gcl.exports.formats.{self.name}:snippet")(encoder, place)

    def refuses(self, encoder: DualEncoder) -> str | None:
        """Why this architecture cannot be written in this format; None: it can."""
        refuses = getattr(import_module(f"gcl.exports.formats.{self.name}"), "refuses", None)
        return refuses and refuses(encoder)

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        of_node = [package for package in self.requires if package.startswith("@") and node_package(package) is None]
        return of_node + missing_of(package for package in self.requires if not package.startswith("@"))

    @property
    def missing_sentence(self) -> str:
        """What is missing and the command that installs it."""
        missing = self.missing
        how = f"npm install --ignore-scripts {missing[0]}" if missing[0].startswith("@") else install(self.extra)
        return f"{self.name} needs {', '.join(missing)}, which is not installed: {how}."

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


_later = partial(later, "gcl.exports.formats")
_OF_ONNX = Precisions(_later("onnx_session:written_precisions"))
_ALL = (
    Format(
        name="open_clip",
        writes="open_clip_config.json, weights as safetensors, and the tokenizer's files",
        explanation="open_clip, and what is built on it, loads the folder or the repository by its name.",
        marker="open_clip_config.json",
        load=_later("open_clip:LoadedOpenClip"),
        library="open_clip",
        rank=3,
    ),
    Format(
        name="transformers",
        writes="SiglipModel, CLIPModel or MetaClip2Model: config.json, model.safetensors, processor and tokenizer",
        explanation="AutoModel and AutoProcessor load it without remote code; so do most serving stacks.",
        marker="config.json",
        load=_later("transformers:LoadedTransformers"),
        library="transformers",
        rank=1,
        compared="Images that transformers would read differently were resized for it, as the notes above say.",
    ),
    Format(
        name="sentence_transformers",
        writes="modules.json and its modules around the transformers files, prompts included",
        explanation="SentenceTransformer loads it, for texts and images; vector databases integrate it.",
        marker="modules.json",
        load=_later("sentence_transformers:LoadedSentenceTransformers"),
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
        load=_later("onnx_session:LoadedOnnx"),
        library="onnx",
        rank=4,
        requires=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        precisions=Reduced(
            written=_later("onnx_session:written_precisions"),
            add=_later("onnx:add_precisions"),
            as_encoder=_later("onnx:OnnxEncoder"),
            quality="onnx/quality.json",
        ),
    ),
    Format(
        name="transformers_js",
        writes="onnx/text_model.onnx and onnx/vision_model.onnx next to the transformers files",
        explanation="transformers.js runs it in browsers and in node.",
        marker="onnx/text_model.onnx",
        load=_later("transformers_js:LoadedTransformersJs"),
        library="transformers.js",
        rank=5,
        requires=(TRANSFORMERS_JS,),
        needs=("transformers", "onnx"),
        on_request=True,
        language="javascript",
        precisions=_OF_ONNX,
        compared="transformers.js shrinks images by other filters: they were given to it in the model's size.",
    ),
    Format(
        name="openvino",
        writes="openvino/: OpenVINO's own files of every graph of onnx",
        explanation="OpenVINO and its model server run it on Intel's processors.",
        marker="openvino/text.xml",
        load=_later("openvino:LoadedOpenVino"),
        library="openvino",
        rank=6,
        requires=("openvino",),
        extra="openvino",
        needs=("onnx",),
        on_request=True,
        precisions=_OF_ONNX,
    ),
    Format(
        name="fastembed",
        writes="onnx/text_model.onnx next to the tokenizer's files",
        explanation="FastEmbed, with which Qdrant's client encodes queries, takes its text tower as a custom model.",
        marker="onnx/text_model.onnx",
        load=_later("fastembed:LoadedFastEmbed"),
        library="fastembed",
        rank=7,
        requires=("fastembed",),
        extra="fastembed",
        needs=("onnx",),
        on_request=True,
        precisions=_OF_ONNX,
        compared="FastEmbed encodes texts alone: its images were encoded by onnxruntime.",
    ),
    Format(
        name="triton",
        writes="triton/: a model repository with an ensemble per tower, from strings and files to vectors",
        explanation="Triton serves it: onnxruntime for the towers, Python for tokenizer and resizing.",
        marker="triton/embed_text/config.pbtxt",
        load=_later("triton:LoadedTriton"),
        library="",
        rank=8,
        requires=("tritonclient", "grpc"),
        extra="triton",
        needs=("onnx",),
        on_request=True,
        compared="Triton's ensembles were followed in this process, by their configs as its protobuf reads them.",
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
        return [one for one in map(FORMATS.__getitem__, supported(encoder)) if not one.on_request and not one.missing]
    check_formats(wanted)
    for name in wanted:
        if why := FORMATS[name].refuses(encoder):
            raise ConfigError(f"formats: {name} is not possible. {why} {_others(encoder)}")
    formats = [FORMATS[name] for name in with_needs(wanted)]
    for one in formats:
        if one.missing:
            raise ConfigError(f"formats: {one.missing_sentence}")
    return formats


def with_needs(wanted: Sequence[str]) -> list[str]:
    """The formats of these names and those that they are made of, in the order of writing; other names are dropped."""
    known = [name for name in wanted if name in FORMATS]
    needed = {need for name in known for need in FORMATS[name].needs}
    return [name for name in FORMATS if name in known or name in needed]


def check_formats(wanted: Sequence[str]) -> None:
    """Raises ConfigError for the first name that is no format: before a model loads. Packages that are missing are for
    `choose` to name: nobody should install them for an architecture that the format does not allow."""
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(f"formats: there is no format {name!r}.{nearest(name, [*FORMATS, EMBEDDINGS])}")


def left_out(encoder: DualEncoder) -> list[str]:
    """A sentence for every format that `choose(encoder, None)` leaves out, though nobody has to ask for it."""
    sentences = []
    for name, format in FORMATS.items():
        if format.on_request:
            continue
        if why := format.refuses(encoder):
            sentences.append(f"Without {name}: {why}")
        elif format.missing:
            sentences.append(f"Without {name}: {format.missing_sentence}")
    return sentences


def _others(encoder: DualEncoder) -> str:
    names = supported(encoder)
    return f"Formats that work with it: {', '.join(names)}." if names else "No format works with it."
