"""Several catalogs as one: what `data.mix` may say, and the schema they share. Standard library only.

    # conf/data/both.yaml
    name: both
    mix: {fashion: 0.7, shoes: 0.3}     # conf/data/fashion.yaml and shoes.yaml; shares of the training pairs

Each catalog is prepared, split and measured as if it were alone; its tasks are called `fashion/in_domain` and its ids
begin with `fashion/`, so equal ids of two catalogs are two documents. `query` and `document` may be left out: then they
are all fields of all catalogs. A field that a catalog does not have is absent from its records.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace

from gcl.data.catalog import Catalog
from gcl.schema import SIDES, Field, SideName, check_side

_OWN = (
    "name",
    "mix",
    "batches",
    "catalogs",
    "cache_gb",
    *SIDES,
)  # what a mix says itself; all else belongs to its catalogs


def complete_mix(mixed: Catalog) -> Catalog:
    """The mix with its schema filled in. `mixed.catalogs` must hold the Catalog of each name.

    Raises ValueError for shares that are not above 0, settings that belong to one of the catalogs, and fields that
    differ.
    """
    _check_shares(mixed)
    mixed = replace(mixed, catalogs={name: mixed.catalogs[name] for name in mixed.mix})
    plain = Catalog()
    for item in fields(Catalog):
        if item.name not in _OWN and getattr(mixed, item.name) != getattr(plain, item.name):
            first = next(iter(mixed.mix))
            raise ValueError(
                f"data.{item.name} is set next to data.mix, whose catalogs have their own: write "
                f"data.catalogs.{first}.{item.name}."
            )
    for name, catalog in mixed.catalogs.items():
        if catalog.mix:
            raise ValueError(f"data.mix names {name}, which is a mix itself: name its catalogs.")
    return replace(mixed, query=_side(mixed, "query"), document=_side(mixed, "document"))


def check_names(catalog: Catalog) -> None:
    """Raises ValueError for data.catalogs that data.mix does not name."""
    if unknown := catalog.catalogs.keys() - catalog.mix.keys():
        named = f"names {', '.join(catalog.mix)}" if catalog.mix else "is empty"
        raise ValueError(f"data.catalogs.{min(unknown)}: data.mix names no such catalog; it {named}.")


def _check_shares(mixed: Catalog) -> None:
    for name, share in mixed.mix.items():
        if not (share > 0 and math.isfinite(share)):
            raise ValueError(f"data.mix.{name} is {share}: a share is a number above 0; leave a catalog out otherwise.")


def _side(mixed: Catalog, side: SideName) -> dict[str, Field]:
    """The fields of a side: those that the mix names, or all of its catalogs."""
    given: dict[str, Field] = getattr(mixed, side)
    union: dict[str, Field] = {}
    first_of: dict[str, str] = {}
    for name, catalog in mixed.catalogs.items():
        for field, spec in getattr(catalog, side).items():
            known = given.get(field) or union.get(field)
            where = f"data.{side}.{field}"
            if known is not None and known.kind != spec.kind:
                by = "data.mix" if field in given else first_of[field]
                how = "give one of them another name (its column is set by `column`)"
                if known.modality is spec.modality:
                    how = f"set data.catalogs.{name}.{side}.{field}.images={known.images}, or the other one's"
                raise ValueError(f"{where} is {known.kind} in {by} and {spec.kind} in {name}: {how}.")
            first = None if given else union.get(field)
            if first is not None and (first.weight, first.prompt) != (spec.weight, spec.prompt):
                raise ValueError(
                    f"{where} has the weight {first.weight} and prompt {first.prompt!r} in {first_of[field]}, but "
                    f"{spec.weight} and {spec.prompt!r} in {name}: write the {side} fields next to data.mix."
                )
            union.setdefault(field, replace(spec, column=None))
            first_of.setdefault(field, name)
        if given and not given.keys() & getattr(catalog, side).keys():
            raise ValueError(
                f"The catalog {name} has none of the {side} fields {', '.join(given)}; it has "
                f"{', '.join(getattr(catalog, side))}."
            )
    if unknown := [field for field in given if field not in union]:
        raise ValueError(
            f"data.{side}.{unknown[0]}: none of the catalogs {', '.join(mixed.mix)} has such a field; they have "
            f"{', '.join(union)}."
        )
    side_fields = given or union
    check_side(side, side_fields)
    return side_fields
