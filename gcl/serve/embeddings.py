"""Vectors of texts, pictures and products, in the form of OpenAI's interface, so that its clients take this server."""

from __future__ import annotations

import base64
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gcl.data.store.records import MOST_IMAGES, Record
from gcl.model.tokens import count_tokens
from gcl.retrieval.embedding.embed import embed
from gcl.retrieval.tasks.task import ListRecords
from gcl.schema import Modality, SideName
from gcl.serve.engine import Engine, plain
from gcl.serve.pictures import Pictures
from gcl.serve.refusal import BadRequest
from gcl.serve.shapes import MOST_INPUTS, Embeddings

_LONGEST_FIELD = 100_000  # characters of a product's text; models read far less


def embeddings_of(engine: Engine, asked: Embeddings, pictures: Pictures) -> dict[str, Any]:
    """An EmbeddingList. Raises BadRequest."""
    encoder, single = engine.encoder(asked.model), isinstance(asked.input, str | dict)
    inputs = [asked.input] if single else asked.input
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= MOST_INPUTS:
        raise BadRequest(f"input is a text, an object of a product's fields, or a list of 1 to {MOST_INPUTS} of these.")
    gate = encoder.by_query
    width = encoder.width if gate is None else encoder.width * len(gate.fields)
    if asked.dimensions not in (None, width):
        raise BadRequest(f"dimensions is {asked.dimensions}; {asked.model} has vectors of {width} numbers.")
    sides: dict[SideName, dict[int, Record]] = {"query": {}, "document": {}}
    for number, value in enumerate(inputs):
        try:
            if isinstance(value, dict):
                sides["document"][number] = _document(engine, value, pictures)
            else:
                sides["query"][number] = _query(engine, value, pictures)
        except BadRequest as error:
            raise error if single else BadRequest(f"input.{number}: {error}", error.status) from None
    vectors = np.empty((len(inputs), width), dtype="<f4")
    for side, records in sides.items():
        if records:
            fields = encoder.schema.side(side)
            listed = ListRecords([str(number) for number in records], list(records.values()), fields)
            weights = None if side == "document" else dict.fromkeys(fields, 1.0)  # a query has one field here
            made = embed(encoder, listed, side).searched(weights)
            vectors[list(records)] = gate.asked(made) if gate is not None and side == "query" else made
    texts = [v for side in sides.values() for record in side.values() for v in record.values() if isinstance(v, str)]
    tokens = sum(count_tokens(encoder.preprocess.tokens, texts)) if texts else 0
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": _written(vector, asked.encoding_format)}
            for number, vector in enumerate(vectors)
        ],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _written(vector: np.ndarray, form: str) -> Any:
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()


def _query(engine: Engine, value: Any, pictures: Pictures) -> Record:
    if not isinstance(value, str):
        raise BadRequest(f"An input is a text or an object of a product's fields; given {reprlib.repr(value)}.")
    picture = pictures.given(value)
    return engine.record(None, picture) if picture else engine.record(value, None)


def _document(engine: Engine, given: Mapping[str, Any], pictures: Pictures) -> Record:
    if unknown := [name for name in given if name not in engine.fields]:
        raise BadRequest(f"A product has no field {reprlib.repr(unknown[0])}; fields: {', '.join(engine.fields)}.")
    record: Record = dict.fromkeys(engine.fields)
    for name, value in given.items():
        field = engine.fields[name]
        several = value if isinstance(value, list) and field.is_set else [value]
        if len(several) > MOST_IMAGES or not all(isinstance(one, str) for one in several):
            listed = f", or a list of up to {MOST_IMAGES} pictures" if field.is_set else ""
            raise BadRequest(f"{name} is a text (of a picture its data URL){listed}; given {reprlib.repr(value)}.")
        if field.modality is Modality.image:
            files = tuple(pictures.required(one) for one in several)
            record[name] = (files or None) if field.is_set else files[0]
        elif len(value) > _LONGEST_FIELD:
            raise BadRequest(f"{name} has {len(value):,} characters; a product's text has at most {_LONGEST_FIELD:,}.")
        else:
            record[name] = plain(" ".join(value.split()))
    if not any(value and engine.fields[name].weight > 0 for name, value in record.items()):
        raise BadRequest("The product has no field that counts.")
    return record
