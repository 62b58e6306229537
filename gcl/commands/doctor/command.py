"""`gcl doctor data=…`, or run=… for that of a run: whether a catalog is fit for training, before it costs time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.catalog import Catalog, Verify
from gcl.data.store.away import local_folder
from gcl.data.titles import task_titles
from gcl.files.atomic import write_json, write_text
from gcl.files.progress import Stages
from gcl.run.console import say, speak_plainly
from gcl.run.folder import config_of, run_of
from gcl.schema import SideName
from gcl.table import visible_lines

_PICTURE = 160  # pixels of a picture on the page


@dataclass
class DoctorOptions:
    """Options of `gcl doctor`. The settings are those of `gcl train`; doctor.html, doctor.txt and doctor.json go into
    `out`, by default next to the prepared catalog."""

    all: bool = False
    """Look at every image and text instead of a sample."""
    verify: bool = False
    """Compare every prepared shard with its SHA-256, whatever data.verify says."""


def run(options: DoctorOptions, overrides: Overrides) -> None:
    """Exits with status 1 if something has to be fixed before training."""
    config = config_of(overrides)
    if options.verify:
        for catalog in (config.data, *config.data.catalogs.values()):
            catalog.verify = Verify.always
    if doctor(config, everything=options.all):
        raise SystemExit(1)


def doctor(config: RunConfig, *, everything: bool = False) -> int:
    """Prints and writes the page (for a mix, one per catalog and one for the mix); returns the number of problems."""
    speak_plainly()
    examined = []
    for one in examine(config, everything=everything):
        say(one.text)
        say(f"\nWrote {one.folder / 'doctor.html'}, doctor.txt and doctor.json.")
        examined.append(one)
    if config.data.mix and len(examined) == len(config.data.mix):
        catalogs = ", ".join(config.data.mix)
        say(f"\n{config.data.name} itself is examined once the problems of its catalogs ({catalogs}) are fixed.")
    return sum(one.problems for one in examined)


@dataclass(frozen=True)
class Examined:
    """A catalog that was looked at: the folder with its pages, what they say, how many problems there are."""

    folder: Path
    facts: dict[str, Any]
    text: str
    problems: int


def examine(config: RunConfig, *, everything: bool = False) -> Iterator[Examined]:
    """Writes the pages of a catalog; of a mix those of each of its catalogs and, unless one has a problem, its own."""
    out = Path(config.out) if config.out else local_folder(config.cache_dir) / f"{config.data.name}-doctor"
    problems = 0
    for name, catalog in config.data.catalogs.items() if config.data.mix else ():
        own = partial(_examine, replace(config, data=catalog), out / name, everything, alone=False)
        one = _examined(catalog, out / name, own)
        problems += one.problems
        yield one
    if not problems:
        look = (
            partial(_examine_mix, config, everything) if config.data.mix else partial(_examine, config, out, everything)
        )
        yield _examined(config.data, out, look)


def _examined(catalog: Catalog, out: Path, look: Callable[[Path, dict[str, Any], Stages], Any]) -> Examined:
    """look: fills in facts, and may prepare in a folder that is soon removed."""
    begun = time.monotonic()
    facts: dict[str, Any] = {"name": catalog.name, "titles": task_titles(catalog)}
    with tempfile.TemporaryDirectory(prefix="gcl-doctor-") as place, Stages(f"gcl doctor: {catalog.name}") as stages:
        prepared = look(Path(place), facts, stages)
        stages.begin("writing the page")
        from gcl.commands.doctor.findings import judge
        from gcl.commands.doctor.page import html_page, text_page

        findings = judge(facts)
        facts["findings"] = [finding._asdict() for finding in findings]
        facts["seconds"] = time.monotonic() - begun
        text = text_page(facts, findings)
        write_json(out / "doctor.json", facts)
        write_text(out / "doctor.txt", visible_lines(text) + "\n")
        write_text(out / "doctor.html", html_page(facts, findings, partial(_picture, prepared)))
    return Examined(out, facts, text, sum(finding.level == "problem" for finding in findings))


def _picture(prepared: Any, side: SideName, row: int) -> str | None:
    """The data URI of a record's picture."""
    from gcl.data.doctor.facts import stores_of
    from gcl.retrieval.page.details import Side
    from gcl.retrieval.page.thumbnails import thumbnail

    data = Side(stores_of(prepared)[side]).picture(row) if prepared is not None else None
    return thumbnail(data, _PICTURE) if data else None


def _examine_mix(config: RunConfig, everything: bool, _: Path, facts: dict[str, Any], stages: Stages) -> Any:
    from gcl.data.prepare.mixed import open_catalog

    stages.begin("preparing")
    prepared = open_catalog(config.data, config.cache_dir)
    facts["counts"] = {name: value for name, value in prepared.counts.items() if name != "tasks"}
    facts["tasks"] = prepared.counts["tasks"]
    _examine_batches(config, prepared, facts, stages, everything=everything)
    return prepared


def _examine(
    config: RunConfig, out: Path, everything: bool, place: Path, facts: dict[str, Any], stages: Stages, *,
    alone: bool = True,
) -> Any:  # fmt: skip
    """`alone`: the catalog is trained on by itself, so its own batches are examined too."""
    stages.begin("preparing")
    from gcl.commands.doctor.preparing import prepare_what_can_be

    found = prepare_what_can_be(config.data, local_folder(config.cache_dir), place, out, everything=everything)
    facts["catalog"] = {"note": found.note, "refused": found.refusals}
    if found.folder is None:
        return None
    from gcl.data.doctor.facts import OF_PAIRS, OF_SPLIT, examine
    from gcl.data.store.prepared import open_prepared

    catalog = found.catalog
    prepared = open_prepared(found.folder, catalog.schema, verify=catalog.verify)
    facts |= examine(prepared, everything=everything, threads=catalog.store.workers, begin=stages.begin)
    facts |= {
        "training": catalog.training,
        "score_column": catalog.score,
        "own_field": catalog.own_field,
        "split": {name: getattr(catalog.split, name) for name in ("queries", "documents", "copies", "group")},
    }
    if config.run is not None and run_of(config).best.is_file() and found.whole:
        stages.begin("measuring the run's field weights")
        facts["field_weights"] = _field_weights(replace(config, data=catalog), prepared)
    config, steps = replace(config, data=catalog), alone and catalog.training and found.whole
    _examine_batches(config, prepared, facts, stages, everything=everything, texts=True, steps=steps)
    if not found.whole:
        facts["catalog"]["note"] = "Only what can be read in spite of the refusals is shown."
        for name in OF_PAIRS if found.catalog.pairs is None else OF_SPLIT:
            facts.pop(name, None)
    return prepared


def _field_weights(config: RunConfig, prepared: Any) -> dict[str, str]:
    """Whether one field alone would be better for the run's model than the weights, on the dev half: what is said, and
    the setting. Empty where not, or where there are too few queries."""
    from gcl.run.contestants import tuned_encoder
    from gcl.run.measurement import embedding_cache, frozen_features, measurement_of
    from gcl.run.weighing import beaten_by_a_field

    encoder = tuned_encoder(run_of(config), config.data.schema)
    measurement = measurement_of(
        config.evaluate, config.data, prepared, cache=embedding_cache(config),
        features=frozen_features(encoder, prepared, config),
    )  # fmt: skip
    try:
        tasks = measurement.embedded(encoder, "dev")
    except ValueError:  # no task has a query there
        return {}
    beaten = beaten_by_a_field(config.data.name, config.data.schema, tasks, config.evaluate.headline[0])
    return {} if beaten is None else {"sentence": f"{beaten.sentence}.", "do": beaten.setting}


def _examine_batches(
    config: RunConfig, prepared: Any, facts: dict[str, Any], stages: Stages, *,
    everything: bool, texts: bool = False, steps: bool = True,
) -> None:  # fmt: skip
    """What model, loss and plan make of a catalog: its `texts`, and its batches with the memory and time of `steps`."""
    stages.begin("loading the model")
    from gcl.commands.doctor import model
    from gcl.run.console import quiet_libraries

    quiet_libraries()
    if len(prepared.pairs):
        facts["weights"] = model.weights(prepared, config)
    plan = None
    if steps:
        plan, facts["batches"] = model.batches(prepared, config, everything=everything)
    encoder, note = model.load(config)
    facts["model"] = {"label": config.model.label, "note": note}
    if encoder is not None:
        facts["model"]["multilingual"] = model.reads_many_languages(encoder)
        if texts:
            stages.begin("counting tokens")
            facts["tokens"] = model.token_lengths(prepared, encoder, everything=everything)
        if plan is not None:
            stages.begin("measuring a step")
            facts["memory"] = model.step_on_paper(encoder, prepared, plan, config)
            facts["time"] = model.expected_time(config, plan, facts["memory"]["seconds"])
