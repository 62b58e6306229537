"""The choices of an export. Standard library only."""

from __future__ import annotations

from gcl.options import Choice


class Precision(Choice):
    """The number type that an exported model computes in."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Content(Choice):
    """What a row of an embeddings file holds: one vector, or one per field."""

    fused = "fused"
    fields = "fields"


class VectorType(Choice):
    """The number type of the vectors in embeddings files."""

    float32 = "float32"
    float16 = "float16"
