"""What a product record is made of. Imports nothing heavy: configs are checked against this before torch is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from gcl.options import Choice, number

SideName = Literal["query", "document"]
SIDES: tuple[SideName, ...] = ("query", "document")
SideWeights = Mapping[SideName, Mapping[str, float]]  # side -> field -> weight
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class Modality(Enum):
    """How a column is read. Members are named as in YAML."""

    text = "text"
    image = "image"


class TextForm(Choice):
    """How a text field's cells are written."""

    plain = "plain"
    html = "html"


class Images(Choice):
    """Which images of a product that has several an image field takes."""

    first = "first"
    all = "all"


@dataclass
class Field:
    """One named column of a side: how it is read, how much it counts, how it is phrased."""

    modality: Modality = Modality.text
    """How the column is read: text, or image (a path, a URL or the bytes)."""
    weight: float = number(1.0, least=0, most=1e6)
    """Share in the weighted mean of the side's field embeddings; renormalised over the fields that a record has."""
    prompt: str = "{}"
    """Template of a text field in which "{}" is replaced by the value, for example "a photo of {}"."""
    column: str | None = None
    """The table's column; null: the field's name."""
    columns: list[str] = field(default_factory=list)
    """Of an image field whose images are in several columns, in this order; empty: they are all in `column`."""
    separator: str | None = None
    """What separates the paths or URLs in an image field's cell, for example ","; null: a cell is one image, or a list
    (of Parquet, or written in JSON)."""
    images: Images = Images.first
    """Of several images of one product: the "first", or "all", whose embedding is the normalised mean of theirs."""
    text: TextForm = TextForm.plain
    """How a text field is written: "plain", or "html", of which tags and entities are removed."""

    @property
    def is_set(self) -> bool:
        """Whether a record's value is a set, of all its images."""
        return self.modality is Modality.image and self.images == Images.all

    @property
    def kind(self) -> str:
        """What a record's value is: "text", "image", or "images" for a set."""
        return "images" if self.is_set else self.modality.value


@dataclass
class Schema:
    """The two sides of a sample: ordered mappings from field name to Field. Order is the order of F in [B, F, D]."""

    query: dict[str, Field] = field(default_factory=dict)
    document: dict[str, Field] = field(default_factory=dict)

    def side(self, name: SideName) -> dict[str, Field]:
        if name not in SIDES:
            raise KeyError(f"A side is 'query' or 'document', not {name!r}.")
        return self.query if name == "query" else self.document

    @property
    def weights(self) -> dict[SideName, dict[str, float]]:
        """The weight of each field."""
        return {name: {key: spec.weight for key, spec in self.side(name).items()} for name in SIDES}

    def weighted(self, weights: SideWeights) -> Schema:
        """The same fields with other weights; those that are not named keep theirs."""
        query, document = (
            {
                key: replace(spec, weight=weights.get(name, {}).get(key, spec.weight))
                for key, spec in self.side(name).items()
            }
            for name in SIDES
        )
        return Schema(query, document)

    def check(self) -> Schema:
        """Raises ValueError, in a sentence, for a schema no model could use; returns itself."""
        for name in SIDES:
            check_side(name, self.side(name))
        return self


def fields_of(side: Mapping[str, Field], modality: Modality) -> list[str]:
    """The names of a side's texts, or of its images, in order."""
    return [name for name, spec in side.items() if spec.modality is modality]


def check_side(name: str, side: Mapping[str, Field]) -> None:
    if not side:
        raise ValueError(
            f"data.{name} has no field: name at least one column, for example data.{name}.title.modality=text."
        )
    for key, spec in side.items():
        where = f"data.{name}.{key}"
        if not _FIELD_NAME.fullmatch(key):
            raise ValueError(
                f"{where}: a field's name is letters, digits, '_' or '-', starting with a letter; give the column "
                f"as {where.rsplit('.', 1)[0]}.<name>.column={key!r}."
            )
        if not spec.weight >= 0:
            raise ValueError(f"{where}.weight is {spec.weight}: a field weight is a number of at least 0.")
        _check_form(where, spec)
        if spec.modality is Modality.text and spec.prompt.count("{}") != 1:
            raise ValueError(f"{where}.prompt is {spec.prompt!r}: it must contain '{{}}' once, where the value goes.")
    if not any(spec.weight > 0 for spec in side.values()):
        raise ValueError(f"data.{name}: all field weights are 0; give at least one field a positive weight.")


def _check_form(where: str, spec: Field) -> None:
    if spec.modality is Modality.text:
        for name in ("columns", "separator"):
            if getattr(spec, name):
                raise ValueError(
                    f"{where}.{name} is set, but the field is text: only an image field has several values."
                )
        if spec.images is not Images.first:
            raise ValueError(f"{where}.images is {spec.images}, but the field is text: it has one value.")
    elif spec.text is not TextForm.plain:
        raise ValueError(f"{where}.text is {spec.text}, but the field is an image.")
    if spec.column and spec.columns:
        raise ValueError(f"{where}.column and {where}.columns are both set: name one column, or several.")
