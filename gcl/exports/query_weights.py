"""field_weights.safetensors of an exported folder: the gate by which each query weighs a document's fields.

The other libraries' formats hold towers, and none of them computes a score; so the gate lies beside them, with code.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gcl.exports.folder import reached
from gcl.model.dual_encoder import DualEncoder
from gcl.model.query_weights import QueryWeights

FILE = "field_weights.safetensors"


def add_query_weights(encoder: DualEncoder, folder: Path) -> list[str]:
    """Writes the file where the model has a gate; returns the card's section."""
    if (gate := encoder.by_query) is None:
        return []
    tensors = {
        "given": torch.tensor([gate.given[name] for name in gate.fields], dtype=torch.float32),
        "matrix": gate.matrix.contiguous(),
        "bias": gate.bias.contiguous(),
    }
    save_file(tensors, folder / FILE, metadata={"given": json.dumps(gate.given), "fields": json.dumps(gate.fields)})
    return _section(gate)


def read_query_weights(folder: Path) -> QueryWeights | None:
    """None where the folder has none."""
    if not (folder / FILE).is_file():
        return None
    with safe_open(folder / FILE, framework="pt") as file:
        given = json.loads(file.metadata()["given"])
        return QueryWeights(given, file.get_tensor("matrix"), file.get_tensor("bias"))


def _section(gate: QueryWeights) -> list[str]:
    shares = sum(gate.given[name] for name in gate.fields)
    given = ", ".join(f"{name} {gate.given[name] / shares:.3g}" for name in gate.fields)
    return [
        "## Field weights by query", "",
        f"Each query weighs the fields of a product ({', '.join(gate.fields)}) by its own vector q: w(q) = softmax(log "
        f"given + matrix q + bias), of the tensors in `{FILE}`; the given weights are {given}. The score of a product "
        "is the sum of w(q) times the cosine of q and its field's vector: an engine keeps one vector per field, or all "
        "of them side by side. A field that a product lacks is represented by its other fields, fused as shown above "
        "by the given weights. The figures of this card are measured so.", "",
    ]  # fmt: skip


def snippets_of(encoder: DualEncoder) -> list[QueryWeightsSnippet]:
    """The card's, where the model has a gate."""
    return [] if encoder.by_query is None else [QueryWeightsSnippet(encoder.by_query)]


class QueryWeightsSnippet:
    """The card's snippet, named and called like that of a format."""

    name, language = "field weights by query", "python"

    def __init__(self, gate: QueryWeights) -> None:
        self._gate = gate

    def snippet(self, encoder: DualEncoder, place: str) -> str:
        """Python source for the card."""
        fetch, folder = reached(place)
        return f"""\
import numpy as np
from safetensors.numpy import load_file
{fetch}
gate, fields = load_file({folder} + "/{FILE}"), {json.dumps(self._gate.fields)}


def weights(query):
    \"\"\"A query's unit vector -> what each field of a product counts, with a sum of 1.\"\"\"
    logits = np.log(gate["given"]) + gate["matrix"] @ query + gate["bias"]
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


# yours: unit vectors of a query and of a product's fields, from the snippets above
vectors = np.random.default_rng(0).normal(size=(1 + len(fields), gate["matrix"].shape[1]))
query, *product = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
given = weights(query)
print(dict(zip(fields, given.round(3).tolist())))
print(round(float(sum(w * (query @ vector) for w, vector in zip(given, product))), 5))
asked = np.concatenate([w * query for w in given])  # the same score, of vectors in an index of inner products
print(round(float(asked @ np.concatenate(product)), 5))
"""
