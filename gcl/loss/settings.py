"""What `loss:` in a run's config may say, and the rules for it. Imports nothing heavy: checked before torch loads.

GCLLoss and the config check call the same rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcl.errors import nearest
from gcl.options import MISSING, Choice, Range, check_given, free, is_number, mapping, node, number, path

FUSED = "fused"  # the part that all fields of a side make together


class Form(Choice):
    """softmax: each query chooses among the batch's documents, and the other way round (CLIP). sigmoid: each
    (query, document) is a yes or no of its own (SigLIP)."""

    softmax = "softmax"
    sigmoid = "sigmoid"


class Direction(Choice):
    """Who chooses: queries among documents, documents among queries, or the mean of both."""

    both = "both"
    query = "query"
    document = "document"


class Normalizer(Choice):
    """What the weighted sum over pairs is divided by: the sum of the weights, or the number of pairs."""

    weight = "weight"
    count = "count"  # type: ignore[assignment]  # in place of str.count, which no one calls on a choice


class SigmoidWeight(Choice):
    """What a pair's weight counts for in the sigmoid form: its target and its negatives, or its target alone."""

    pair = "pair"
    target = "target"


class Repeat(Choice):
    """What another pair of the same query (or the same document) is to this one."""

    ignore = "ignore"
    negative = "negative"


class Target(Choice):
    """What a query is to find. pair: the pair's own document. In the softmax form, all that training pairs know of the
    batch: its positives, each as much (positives), or each as much as its weight (graded). In the sigmoid form, its
    weight as the probability of a yes (sigmoid)."""

    pair = "pair"
    positives = "positives"
    graded = "graded"
    sigmoid = "sigmoid"


@dataclass(frozen=True)
class Term:
    """One contrastive loss of the sum: a part of the query against a part of the document."""

    query: str = FUSED
    """Part of the query: "fused" (all fields together) or a field's name."""
    document: str = FUSED
    """Part of the document: "fused" (all fields together) or a field's name."""
    weight: float = number(1.0, least=0, most=1e6)
    """Factor of this term in the sum, at least 0."""


@dataclass
class LossConfig:
    """Generalized contrastive loss (gcl.loss.gcl.GCLLoss explains each option with its formula)."""

    form: Form = Form.softmax
    """softmax (CLIP's loss with weights) or sigmoid (SigLIP's loss with weights)."""
    score_to_weight: Any = node(MISSING)
    """Function that turns a pair's score into its weight: a `_target_` of gcl.loss.weight with its parameters."""
    direction: Direction = Direction.both
    """both, query (each query chooses among documents) or document (each document among queries)."""
    normalizer: Normalizer = Normalizer.weight
    """What the weighted sum is divided by: the sum of the weights (weight) or the number of pairs (count)."""
    target: Target = Target.pair
    """What each pair has to find: its own document (pair), or all of the batch that training pairs judge: positives
    alike (positives), by their weights (graded), or, in the sigmoid form, weights as probabilities (sigmoid)."""
    same_query: Repeat = Repeat.ignore
    """What another pair of the same query is to a pair, with target=pair: ignore (left out) or negative."""
    same_document: Repeat = Repeat.ignore
    """What another pair of the same document is to a pair, with target=pair: ignore (left out) or negative."""
    sigmoid_weight: SigmoidWeight = SigmoidWeight.pair
    """What a weight counts for in the sigmoid form: target and negatives (pair) or the target alone (target)."""
    terms: list[Term] = field(default_factory=lambda: [Term()])
    """The contrasts that are summed: {query, document, weight}, each part "fused" or a field's name."""
    false_negative: float | None = number(None, least=0, most=2)
    """Negatives whose cosine exceeds the target's by more than this are left out, most often good answers that nobody
    judged; 0.1 is usual. null: all negatives count."""
    scale: float | None = number(None, above=0, most=1e5)
    """Factor of the cosines at the start (1 / temperature); null: the checkpoint's own."""
    bias: float | None = number(None, least=-1e5, most=1e5)
    """Bias of the sigmoid form at the start; null: the checkpoint's own."""
    learn_scale: bool = True
    """Whether the scale is trained."""
    learn_bias: bool = True
    """Whether the bias is trained; the softmax form has none."""
    max_scale: float = number(100.0, above=0, most=1e5)
    """Upper bound of the scale; a checkpoint that starts above it keeps its own value as the bound."""
    tile: Any = free("auto", "whole number, auto or null", "1024", "auto", "null")
    """Side of the square blocks of similarities in memory, in rows; "auto", or null for the whole matrix at once."""


@dataclass
class TeacherConfig:
    """Whom the student is to agree with besides learning from pairs: none, or one of run, embeddings and scores."""

    run: str | None = path()
    """A finished run: every term of the loss learns its similarities of a batch's queries and documents."""
    embeddings: str | None = path()
    """The same of vectors by id from elsewhere: a Parquet file, or two with + between, of queries and of documents."""
    scores: str | None = path()
    """A table of a reranker's scores (query_id or query, product_id, score): every term learns their order."""
    weight: float = number(1.0, above=0, most=1e6)
    """Factor of what is learned from it, in each term of the loss."""
    temperature: float | None = number(None, above=0, most=1e6)
    """What divides its cosines or scores before the softmax; null: a run's own, 0.05 for vectors, 1 for scores."""
    document: dict[str, float] = mapping(least=0)
    """Weights of the document fields that a run reads as the teacher ({title: 1}); none: its own."""


def check_teacher(teacher: TeacherConfig) -> None:
    """Raises ValueError for two teachers at once, or for settings of one that is not there."""
    given = [name for name in ("run", "embeddings", "scores") if getattr(teacher, name) is not None]
    if len(given) > 1:
        raise ValueError(f"teacher.{given[0]} and teacher.{given[1]}: a run has one teacher, so leave one out.")
    unset = TeacherConfig()
    for name in () if given else ("weight", "temperature", "document"):
        if getattr(teacher, name) != getattr(unset, name):
            raise ValueError(f"teacher.{name} needs a teacher: teacher.run, teacher.embeddings or teacher.scores.")
    if teacher.document and given != ["run"]:
        raise ValueError("teacher.document: only a teacher.run reads fields.")
    if teacher.document and not any(weight > 0 for weight in teacher.document.values()):
        raise ValueError(f"teacher.document={teacher.document}: no field has a weight above 0.")


def check_loss(loss: LossConfig, *, query: Iterable[str], document: Iterable[str]) -> None:
    """query, document: the sides' field names. Raises ValueError for the first value that cannot be, with its key."""
    try:
        check_tile(loss.tile)
        check_terms(loss.terms)
        check_target(loss.target, loss.form)
    except ValueError as error:  # which begins with the option's name
        raise ValueError(f"loss.{error}") from error
    check_score_to_weight(loss.score_to_weight)
    parts = {"query": {FUSED, *query}, "document": {FUSED, *document}}
    for place, term in enumerate(loss.terms):
        for side, names in parts.items():
            part = getattr(term, side)
            if part not in names:
                raise ValueError(
                    f"loss.terms[{place}].{side}={part!r} is not a part of the {side}.{nearest(part, names)}"
                )


def check_score_to_weight(node: Any) -> None:
    """Raises ValueError, with the key, for an empty range of scores, or a lowest weight that cannot be a weight."""
    from gcl.loss.weight import FUNCTIONS

    key = "loss.score_to_weight."
    check_given(key, node, {"floor": Range(least=0, most=1), "exponent": Range(above=0), "ranks": Range(above=1)})
    target = node.get("_target_") if isinstance(node, dict) else None
    function = next((one for one in FUNCTIONS.values() if one.target == target), None)
    given = {**(function.defaults if function else {}), **(node if isinstance(node, dict) else {})}
    low, high = given.get("low"), given.get("high")
    if is_number(low) and is_number(high) and not low < high:
        raise ValueError(f"{key}low={low} with {key}high={high}: the lowest score has to lie below the highest.")


def check_target(target: Target, form: Form) -> None:
    """Raises ValueError for a target that the form does not have."""
    if target == Target.sigmoid and form != Form.sigmoid:
        raise ValueError("target=sigmoid needs loss.form=sigmoid: set it, or choose target=graded.")
    if target in (Target.positives, Target.graded) and form == Form.sigmoid:
        raise ValueError(
            f"target={target} belongs to the softmax form: with form=sigmoid choose target=sigmoid or pair."
        )


def check_tile(tile: object) -> None:
    """Raises ValueError unless a tile is a number of rows, "auto" or None."""
    if not (tile is None or tile == "auto" or (isinstance(tile, int) and not isinstance(tile, bool) and tile >= 1)):
        raise ValueError(f'tile={tile}: a number of rows (1024), "auto", or null for the whole matrix.')


def check_terms(terms: Sequence[Term]) -> None:
    """Raises ValueError unless there is a term, and each (query, document) once."""
    if not terms or len({(term.query, term.document) for term in terms}) < len(terms):
        raise ValueError(f"terms={list(terms)}: expected at least one term, and each (query, document) only once.")
