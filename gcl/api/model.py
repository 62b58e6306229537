"""A model that embeds queries and products: `gcl.load`, `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gcl.api.catalog import stated_fields
from gcl.api.index import Index
from gcl.config.compose import catalog_from
from gcl.data.catalog import Catalog
from gcl.errors import ConfigError
from gcl.model.dual_encoder import DualEncoder
from gcl.model.query_weights import QueryWeights
from gcl.options import Choice
from gcl.retrieval.embedding.embed import EmbedOptions, embed
from gcl.retrieval.settings import EvaluateConfig
from gcl.retrieval.tasks.items import items
from gcl.run.contestants import base_encoder, contestant, tuned_encoder
from gcl.run.folder import RunFolder
from gcl.schema import Field, Modality, Schema, SideName

_TEXT = Schema(query={"query": Field()}, document={"title": Field(weight=0.1)})
_IMAGE = {"image": Field(Modality.image, weight=0.9)}


class Which(Choice):
    """Which model of a run."""

    tuned = "tuned"
    base = "base"


class Model:
    """Embeds queries and documents as training, evaluation and search do.

    name: for tables. encoder: the torch module. catalog: its fields, and how their cells are read.
    """

    def __init__(self, name: str, encoder: DualEncoder, catalog: Catalog, *, cache_dir: str = "prepared") -> None:
        self.name, self.encoder, self.cache_dir = name, encoder, cache_dir
        self.catalog = replace(catalog, query=encoder.schema.query, document=encoder.schema.document)

    @property
    def width(self) -> int:
        """D, the length of a vector."""
        return self.encoder.width

    @property
    def by_query(self) -> QueryWeights | None:
        """What weighs the fields of documents for each query (`train.field_weights=learned_by_query`), if the run chose
        that. Then vectors have D numbers for each of `by_query.fields`: of a query its vector times each weight, of a
        document its fields' vectors; their inner product is the score."""
        return self.encoder.by_query

    def __repr__(self) -> str:
        query, document = ", ".join(self.catalog.query), ", ".join(self.catalog.document)
        return f"<gcl.Model {self.name}: query ({query}), document ({document}), {self.width} numbers>"

    def embed_queries(self, queries: Any, *, batch_size: int | None = None, progress: bool = False) -> np.ndarray:
        """float32 [n, D] unit vectors, one per query; longer ones where there is a `by_query`.

        queries: texts (a list, a Series); dicts or a DataFrame with the query's fields; or images (PIL, bytes, paths).
        batch_size: records encoded at a time; it can change the last bits. progress: show how far it is.
        Raises ValueError, in a sentence, for a query with none of the fields.
        """
        return self._embed(queries, "query", batch_size, progress)

    def embed_documents(self, documents: Any, *, batch_size: int | None = None, progress: bool = False) -> np.ndarray:
        """float32 [n, D] unit vectors, one per product; the same for documents, whose fields are weighted as trained.

        Images are PIL images, the bytes of a file, paths (from the working folder) or URLs. Unknown columns are left
        out, missing values are absent.
        """
        return self._embed(documents, "document", batch_size, progress)

    def _embed(self, rows: Any, side: SideName, batch_size: int | None, progress: bool) -> np.ndarray:
        records, gate = items(rows, self.catalog, side, cache_dir=self.cache_dir, progress=progress), self.by_query
        if not len(records):
            return np.zeros((0, self.width * (1 if gate is None else len(gate.fields))), dtype=np.float32)
        fields = embed(self.encoder, records, side, self.options(batch_size, progress))
        records.check_something()
        records.warn()
        vectors = fields.searched()
        return gate.asked(vectors) if gate is not None and side == "query" else vectors

    def options(self, batch_size: int | None = None, progress: bool = False) -> EmbedOptions:
        """How records are embedded; by default in the blocks of `gcl evaluate`."""
        return EmbedOptions(batch_size or EvaluateConfig().batch_size, progress=progress)

    def index(
        self, products: Any, *, id: str | None = None, batch_size: int | None = None, progress: bool = False
    ) -> Index:
        """Products to search in. id: the column of their ids; None: the one of the run's catalog or one called so, else
        their numbers."""
        return Index(self, products, id=id, options=self.options(batch_size, progress))


def load(
    name: str | Path | Any,
    *,
    which: str = "tuned",
    query: Mapping[str, Any] | None = None,
    document: Mapping[str, Any] | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    config_dir: str | None = None,
    download: Mapping[str, Any] | None = None,
) -> Model:
    """A model to embed with.

    name: a run folder (or a `gcl.Run`), an exported folder, a name of conf/model, hf-hub:<owner>/<name>,
        open_clip:<architecture>/<weights>.
    which: of a run, the "tuned" model or the "base" it began with.
    query, document: the fields of each side as a catalog's YAML has them, {"title": {"weight": 0.1}, "image":
        {"modality": "image", "weight": 0.9}}; "text" and "image" stand for such a field. None: those of the run;
        otherwise query, and title and image.
    device: where it computes; None: the first GPU if there is one. trust: packages whose objects the run's config may
        name. config_dir: a folder of your own YAMLs.
    download: how images behind URLs are fetched, as data.download of a catalog: {"headers": {"Authorization": "Bearer
        $SHOP_KEY"}, "hosts": ["cdn.my-shop.com"]}, where $SHOP_KEY is read from the environment. None: without headers,
        and from public addresses alone; a run folder holds neither.
    Raises ValueError or FileNotFoundError, in sentences.
    """
    known, place = called(name), Path(getattr(name, "path", name)).expanduser()
    catalog, cache_dir = Catalog(name="items"), "prepared"
    if known.startswith("run:"):
        run = RunFolder(Path(known.removeprefix("run:")), tuple(trust))
        config = run.read_config()
        schema = _schema(config.data.schema, query, document)
        chosen = Which(which)
        encoder = tuned_encoder(run, schema) if chosen is Which.tuned else base_encoder(run, schema)
        label, catalog, cache_dir = f"{place.name} ({chosen})", config.data, config.cache_dir
    else:
        if which != Which.tuned:
            raise ConfigError(f"which={which!r} is for runs, and {name} is not a run folder.")
        encoder = _pretrained(known, query, document, config_dir, trust)
        label = place.name if place.is_dir() else known
    if download is not None:
        catalog = replace(catalog, download=catalog_from({"name": "items", "download": download}).download)
    try:
        encoder.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        if device is None:
            raise
        raise ConfigError(f"device={device!r}: expected cpu, cuda or cuda:1, for example ({_first(error)}).") from error
    return Model(label, encoder, catalog, cache_dir=cache_dir)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def called(name: str | Path | Any) -> str:
    """A model as `gcl evaluate models=[…]` calls it: run:<folder> and local-dir:<folder> for folders (or a Run).
    Raises FileNotFoundError for a path that is not there."""
    place = Path(getattr(name, "path", name)).expanduser()
    if (place / "config.yaml").is_file():
        return f"run:{place}"
    if place.is_dir():
        return f"local-dir:{place}"
    if ":" not in str(name) and (place.is_absolute() or len(place.parts) > 1):
        raise FileNotFoundError(f"There is no folder {place}: expected a run folder, or one that gcl export wrote.")
    return str(name)


def _pretrained(
    name: str, query: Mapping | None, document: Mapping | None, config_dir: str | None, trust: Sequence[str]
) -> DualEncoder:
    given = query is not None or document is not None
    schema = _schema(_TEXT, query, document)
    catalog = Catalog("", query=schema.query, document=schema.document)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # as the commands do: a model from scratch is the same one
        loaded = contestant(name, catalog, config_dir=config_dir, trust=trust).encoder
    if not isinstance(loaded, DualEncoder):
        raise ConfigError(f"{name} brings vectors or results, which embed nothing new: give it to gcl.evaluate.")
    if not given and loaded.tower(Modality.image) is not None:
        return loaded.with_schema(Schema(query=_TEXT.query, document=_IMAGE | _TEXT.document))
    return loaded


def _schema(own: Schema, query: Mapping | None, document: Mapping | None) -> Schema:
    return Schema(
        query=own.query if query is None else stated_fields("query", query),
        document=own.document if document is None else stated_fields("document", document),
    ).check()
