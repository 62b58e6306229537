"""field_weights.json of a run folder: the field weights that its trained model is used with, and why these.

`train.field_weights=dev` chooses them when training has ended (gcl/run/weighing.py); `RunFolder.read_config` puts them
into the run's config, from which every command has its fields: evaluating, searching, exporting, `gcl.load`. A run
without the file, an earlier version's for example, is used with the weights of its config.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gcl.data.catalog import Catalog
from gcl.errors import ConfigError
from gcl.files.atomic import write_json
from gcl.schema import SIDES, Schema, SideWeights


@dataclass(frozen=True)
class ChosenWeights:
    """given, used: the weights of the config, and those that the model is used with. why: a sentence. metric, queries:
    what chose them, on how many queries of the dev half; dev: its mean there, for `given`, `used`, each `single` field,
    the `best` constant weights that were tried, and those learned `by_query`. catalogs: where they count: the name of
    the run's catalog; of a mix, also those of its catalogs. by_query: whether each query weighs the document's fields,
    by the gate in the run's checkpoint (gcl/model/query_weights.py); `used` are then for whatever needs constant
    weights."""

    catalogs: Sequence[str]
    given: SideWeights
    used: SideWeights
    why: str
    metric: str | None = None
    queries: int = 0
    dev: Mapping[str, Any] = field(default_factory=dict)
    by_query: bool = False

    @property
    def changed(self) -> bool:
        return self.used != self.given

    @property
    def sentence(self) -> str:
        """What became of the weights, and why, without its full stop."""
        if self.by_query:
            return f"Field weights by query: {self.why}"
        if not self.changed:
            return f"Field weights as given: {self.why}"
        sides = [side for side in SIDES if self.used[side] != self.given[side]]
        changes = "; ".join(f"{written(self.given[side])} -> {written(self.used[side])}" for side in sides)
        return f"Field weights: {changes}: {self.why}"

    def applied(self, catalog: Catalog) -> Catalog:
        """The catalog with the weights that were chosen, if it is the one with the given ones."""
        schema = catalog.schema
        if not self.changed or catalog.name not in self.catalogs or schema.weights != self.given:
            return catalog
        weighted = schema.weighted(self.used)
        return replace(catalog, query=weighted.query, document=weighted.document)

    def fits_queries_of(self, schema: Schema) -> bool:
        """Whether queries weigh the fields of documents that are read through this schema."""
        return self.by_query and list(schema.weights["document"].items()) == list(self.used["document"].items())

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def read_weights(path: Path) -> ChosenWeights | None:
    """None where nothing was chosen. Raises ConfigError for a file that says something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content.setdefault("by_query", False)  # files of earlier versions
        known = {name: content[name] for name in ChosenWeights.__dataclass_fields__}
        if type(known["by_query"]) is not bool:
            raise ValueError("by_query is true or false")
        for weights in (known["given"], known["used"]):
            values = [value for side in SIDES for value in weights[side].values()]
            if not all(type(value) in (int, float) and 0 <= value <= 1e30 for value in values):
                raise ValueError("a weight is a number from 0 to 1e30")
        return ChosenWeights(**known)
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} does not say which field weights the run's model is used with ({type(error).__name__}: {error}). "
            "Without the file those of its config.yaml are used."
        ) from error


def how_weighed(path: Path, *, constant: bool) -> str | None:
    """What became of the weights, for a table; None where they are as given. constant: not by query in any case."""
    chosen = read_weights(path)
    if chosen is None or not (chosen.changed or chosen.by_query):
        return None
    if chosen.by_query and constant:
        return f"constant: {written(chosen.used['document'])}"
    return f"{'by query: ' * chosen.by_query}{chosen.sentence.partition(': ')[2]}"


def written(weights: Mapping[str, float]) -> str:
    """
    >>> written({"image": 0.15, "title": 0.85})
    'image 0.15, title 0.85'
    """
    return ", ".join(f"{name} {value:.3g}" for name, value in weights.items())
