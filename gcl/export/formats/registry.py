"""The formats by their names. `embeddings` is a catalog's data and no Format: gcl/export/vectors/write.py writes it."""

from __future__ import annotations

from importlib.util import find_spec

from gcl.errors import ConfigError, nearest
from gcl.export.formats.base import Format
from gcl.export.formats.onnx import ONNX
from gcl.export.formats.open_clip import OPEN_CLIP
from gcl.export.formats.sentence_transformers import SENTENCE_TRANSFORMERS
from gcl.export.formats.transformers import TRANSFORMERS
from gcl.model.dual_encoder import DualEncoder

# In the order in which they are written: later ones may rely on the files of earlier ones.
FORMATS: dict[str, Format] = {format.name: format for format in (OPEN_CLIP, TRANSFORMERS, SENTENCE_TRANSFORMERS, ONNX)}


def supported(encoder: DualEncoder) -> list[str]:
    """The formats this architecture has, installed or not."""
    return [name for name, format in FORMATS.items() if format.refuses(encoder) is None]


def missing(name: str) -> list[str]:
    """The packages that a format needs and that are not installed."""
    return [package for package in FORMATS[name].requires if find_spec(package) is None]


def choose(encoder: DualEncoder, wanted: list[str] | None) -> list[Format]:
    """The formats to write, in their order; None: all that this architecture has and whose packages are installed.

    Raises:
        ConfigError: an unknown format, one that this architecture has not, or one whose packages are not installed.
    """
    if wanted is None:
        return [FORMATS[name] for name in supported(encoder) if not missing(name)]
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(f"formats: there is no format {name!r}.{nearest(name, [*FORMATS, 'embeddings'])}")
        if why := FORMATS[name].refuses(encoder):
            raise ConfigError(f"formats: {name} is not possible. {why} {_others(encoder)}")
        if absent := missing(name):
            raise ConfigError(
                f"formats: {name} needs {', '.join(absent)}, which is not installed: "
                f'pip install "gcl-trainer[{FORMATS[name].extra}]".'
            )
    return [format for name, format in FORMATS.items() if name in wanted]


def left_out(encoder: DualEncoder) -> list[str]:
    """A sentence for every format that `choose(encoder, None)` leaves out."""
    sentences = []
    for name, format in FORMATS.items():
        if why := format.refuses(encoder):
            sentences.append(f"Without {name}: {why}")
        elif absent := missing(name):
            sentences.append(
                f'Without {name}: {", ".join(absent)} is not installed (pip install "gcl-trainer[{format.extra}]").'
            )
    return sentences


def _others(encoder: DualEncoder) -> str:
    names = supported(encoder)
    return f"Formats that work with it: {', '.join(names)}." if names else "No format works with it."
