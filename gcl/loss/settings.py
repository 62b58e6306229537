"""What `loss:` in a run's config may say. Standard library only: checked before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gcl.options import MISSING, node


class Form(Enum):
    softmax = "softmax"
    sigmoid = "sigmoid"


class Direction(Enum):
    both = "both"
    query = "query"
    document = "document"


class Normalizer(Enum):
    weight = "weight"
    count = "count"


class SigmoidWeight(Enum):
    """What a pair's weight counts for in the sigmoid form: its target and its negatives, or its target alone."""

    pair = "pair"
    target = "target"


class Repeat(Enum):
    """What another pair of the same query (or the same document) is to this one."""

    ignore = "ignore"
    negative = "negative"
    positive = "positive"


@dataclass
class TermConfig:
    """One contrast of the loss: a part of the query ("fused" or a field) against a part of the document."""

    query: str = "fused"
    document: str = "fused"
    weight: float = 1.0


@dataclass
class LossConfig:
    """Generalized contrastive loss. scale and bias null: the checkpoint's own."""

    form: Form = Form.softmax
    score_to_weight: Any = node(MISSING)
    direction: Direction = Direction.both
    normalizer: Normalizer = Normalizer.weight
    same_query: Repeat = Repeat.ignore
    same_document: Repeat = Repeat.ignore
    sigmoid_weight: SigmoidWeight = SigmoidWeight.pair
    terms: list[TermConfig] = field(default_factory=lambda: [TermConfig()])
    scale: float | None = None
    bias: float | None = None
    learn_scale: bool = True
    learn_bias: bool = True
    max_scale: float = 100.0
    tile: Any = "auto"
