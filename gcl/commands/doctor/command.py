"""`gcl doctor data=…`: checks whether a catalog is fit for training before any time is spent on training."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog
from gcl.files.atomic import write_json, write_text
from gcl.run.console import say, speak_plainly

MOST_SHARDS = 4  # of a catalog of ready shards, read unless all=true


@dataclass
class DoctorOptions:
    """Options of `gcl doctor`. The settings are those of `gcl train`; doctor.json and doctor.txt go into `out`, by
    default next to the prepared catalog."""

    all: bool = False
    """Look at every image and text instead of a sample."""


def run(options: DoctorOptions, overrides: Overrides) -> None:
    """Exits with status 1 if something has to be fixed before training."""
    if doctor(overrides.config(), everything=options.all):
        raise SystemExit(1)


def doctor(config: RunConfig, *, everything: bool = False) -> int:
    """Prints and writes the page (for a mix, one per catalog and one for the mix); returns the number of problems."""
    speak_plainly()
    out = Path(config.out) if config.out else Path(config.cache_dir) / f"{config.data.name}-doctor"
    problems = 0
    for name, catalog in config.data.catalogs.items() if config.data.mix else ():
        with tempfile.TemporaryDirectory(prefix="gcl-doctor-") as place:
            look = partial(_examine, replace(config, data=catalog), place=Path(place), everything=everything)
            problems += _tell(catalog.name, out / name, partial(look, alone=False))
    if problems:
        catalogs = ", ".join(config.data.mix)
        say(f"\n{config.data.name} itself is examined once the problems of its catalogs ({catalogs}) are fixed.")
        return problems
    if config.data.mix:
        return _tell(config.data.name, out, partial(_examine_mix, config, everything=everything))
    with tempfile.TemporaryDirectory(prefix="gcl-doctor-") as place:
        return _tell(config.data.name, out, partial(_examine, config, place=Path(place), everything=everything))


def _tell(name: str, out: Path, look: Callable[[dict[str, Any]], None]) -> int:
    begun = time.monotonic()
    facts: dict[str, Any] = {"name": name}
    look(facts)
    from gcl.commands.doctor.findings import judge
    from gcl.commands.doctor.page import page

    findings = judge(facts)
    facts["findings"] = [finding._asdict() for finding in findings]
    facts["seconds"] = time.monotonic() - begun
    text = page(facts, findings)
    write_json(out / "doctor.json", facts)
    write_text(out / "doctor.txt", text + "\n")
    say(text)
    say(f"\nWrote {out / 'doctor.txt'} and doctor.json.")
    return sum(finding.level == "problem" for finding in findings)


def _examine_mix(config: RunConfig, facts: dict[str, Any], *, everything: bool) -> None:
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    facts["counts"] = {name: value for name, value in prepared.counts.items() if name != "tasks"}
    facts["tasks"] = prepared.counts["tasks"]
    _examine_batches(config, prepared, facts, everything=everything)


def _examine(config: RunConfig, facts: dict[str, Any], *, place: Path, everything: bool, alone: bool = True) -> None:
    """`alone`: the catalog is trained on by itself, so its own batches are examined too."""
    folder = _prepared_folder(config.data, Path(config.cache_dir), place, facts, everything=everything)
    if folder is None:
        return
    from gcl.data.doctor.facts import examine
    from gcl.data.store.prepared import open_prepared

    prepared = open_prepared(folder, config.data.schema)
    facts |= examine(prepared, everything=everything, threads=config.data.store.workers)
    _examine_batches(config, prepared, facts, everything=everything, texts=True, steps=alone)


def _examine_batches(
    config: RunConfig,
    prepared: Any,
    facts: dict[str, Any],
    *,
    everything: bool,
    texts: bool = False,
    steps: bool = True,
) -> None:
    """What model, loss and plan make of a catalog: its `texts`, and its batches with the memory and time of `steps`."""
    from gcl.commands.doctor import model
    from gcl.run.console import quiet_libraries

    quiet_libraries()
    facts["weights"] = model.weights(prepared, config)
    plan = None
    if steps:
        plan, facts["batches"] = model.batches(prepared, config, everything=everything)
    encoder, note = model.load(config)
    facts["model"] = {"label": config.model.label, "note": note}
    if encoder is not None:
        if texts:
            facts["tokens"] = model.token_lengths(prepared, encoder, everything=everything)
        if plan is not None:
            facts["memory"] = model.memory(encoder, prepared, plan, config)
            facts["time"] = model.expected_time(config, plan, facts["memory"]["seconds"])


def _prepared_folder(
    catalog: Catalog, cache: Path, place: Path, facts: dict[str, Any], *, everything: bool
) -> Path | None:
    """The catalog prepared as a run would; if that is refused, with any share of bad rows, so that there are facts."""
    from gcl.data.prepare.prepare import prepare

    quiet = logging.getLogger(__name__).debug
    if catalog.shards and not everything:
        try:
            folder = prepare(catalog, place, progress=False, report=quiet, most_shards=MOST_SHARDS)
            facts["catalog"] = {"note": f"at most {MOST_SHARDS} of its shards were read; all=true reads them all"}
            return folder
        except (ValueError, KeyError, OSError):
            pass  # a sample may be too small for the split
    try:
        folder = prepare(catalog, cache, report=quiet)
        facts["catalog"] = {}
        return folder
    except (ValueError, KeyError, OSError) as error:
        sentence = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        facts["catalog"] = {"refused": sentence}
    try:
        return prepare(replace(catalog, max_bad=1.0), place, progress=False, report=quiet)
    except (ValueError, KeyError, OSError):
        return None
