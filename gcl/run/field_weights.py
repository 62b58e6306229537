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
from gcl.schema import SIDES, SideWeights


@dataclass(frozen=True)
class ChosenWeights:
    """given, used: the weights of the config, and those that the model is used with. why: a sentence. metric, queries:
    what chose them, on how many queries of the dev half; dev: its mean there, for `given`, `used` and each `single`
    field. catalogs: where they count: the name of the run's catalog; of a mix, also those of its catalogs."""

    catalogs: Sequence[str]
    given: SideWeights
    used: SideWeights
    why: str
    metric: str | None = None
    queries: int = 0
    dev: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return self.used != self.given

    @property
    def sentence(self) -> str:
        """What became of the weights, and why, without its full stop."""
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

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))


def read_weights(path: Path) -> ChosenWeights | None:
    """None where nothing was chosen. Raises ConfigError for a file that says something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = {name: content[name] for name in ChosenWeights.__dataclass_fields__}
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


def written(weights: Mapping[str, float]) -> str:
    """
    >>> written({"image": 0.15, "title": 0.85})
    'image 0.15, title 0.85'
    """
    return ", ".join(f"{name} {value:.3g}" for name, value in weights.items())
