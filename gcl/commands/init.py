"""`gcl init products.csv pairs.csv`: the YAML of a catalog, written from what its files look like, then examined.

Nothing is trained or changed: the files are read, a YAML is written with a comment on each line, the doctor looks at
the catalog, and what to type next is printed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from gcl.config.checks import check_choices
from gcl.config.compose import Overrides, catalog_of
from gcl.config.folder import conf_folder
from gcl.data.catalog import Catalog
from gcl.data.check import check_catalog
from gcl.errors import ConfigError, install
from gcl.files.atomic import write_text
from gcl.options import path
from gcl.run.console import say, speak_plainly

_USUAL_BATCH = 512
_GENERIC = re.compile(
    r"(products?|catalog(ue)?|katalog|produkte|artikel|items?|feed|export|table|tabelle|data)[\W_\d]*", re.I
)


@dataclass
class InitOptions:
    """Options of `gcl init`."""

    files: list[str] = field(default_factory=list)
    """Tables (CSV, TSV, Excel, JSON, Parquet), XML feeds, judgments (.trec), shards (.tar), folders of these; URLs of
    tables."""

    name: str | None = None
    """The catalog's name; null: the file's, or its folder's."""

    like: str | None = field(default=None, metadata={"values": "a layout or public set, or null"})
    """What the files are: shopify, woocommerce, magento, magento1, google, esci, wands, marqtune or img2dataset; null:
    they are recognised."""

    config_dir: str = path("conf")
    """The folder of your own YAMLs; the catalog's goes into its folder data/."""

    overwrite: bool = False
    """Replace a YAML of this name."""

    doctor: bool = True
    """Examine the catalog (gcl doctor) once its YAML is written."""

    cache_dir: str = path("prepared")
    """The folder of prepared catalogs, and of copies of tables that are URLs."""


def run(options: InitOptions) -> None:
    """Exits with status 1 if the doctor found something to fix before training."""
    speak_plainly()
    from gcl.data.init.inputs import find_inputs
    from gcl.data.init.tables import check_like

    check_like(options.like)
    if not options.files:
        raise ConfigError("gcl init needs files: gcl init products.csv pairs.csv, or a folder of them.")
    inputs = find_inputs(options.files, Path(options.cache_dir).absolute() / "tables")
    name = _name(options, inputs[0].path)
    folder = _folder(options) / "data"
    target = folder / f"{name}.yaml"
    if target.exists() and not options.overwrite:
        raise ConfigError(f"{target} exists: give another name=…, or overwrite=true to replace it.")
    trainable, notes = _write(options, inputs, name, target)
    catalog = catalog_of(str(target))
    if trainable:
        check_catalog(catalog)
    say(f"\nWrote {_shown(target)}: each line says why it is there.")
    for note in notes:
        say(f"  look at: {note}.")
    settings = [f"data={name}", *([f"cache_dir={options.cache_dir}"] if options.cache_dir != "prepared" else [])]
    config_dir = _shown(folder.parent)
    if not trainable:
        raise SystemExit(1)
    problems = 0
    if options.doctor:
        from gcl.commands.doctor.command import doctor

        say()
        settings += _batch_size(catalog, options.cache_dir)
        problems = doctor(Overrides(settings, str(folder.parent)).config())
    words = f"--config-dir {config_dir} {' '.join(settings)}"
    if not options.doctor or problems:
        say(f"\nNext: gcl doctor {words}")
    else:
        say(f"\nNext: gcl train {words} model=lite")
        try:
            check_choices(["model=lite"])
        except ConfigError:
            say(f"  (model=lite has weights of its own: {install('lite')}; model=tiny, from scratch, tries the YAML)")
    if problems:
        raise SystemExit(1)


def _write(options: InitOptions, inputs: list, name: str, target: Path) -> tuple[bool, list[str]]:
    """Writes the YAML; says what was taken for what. Returns whether it can be trained on, and what to look at."""
    from gcl.data.init.draft import draft_tables, relative, variable_of
    from gcl.data.init.inputs import Kind
    from gcl.data.init.look import name_of
    from gcl.data.init.shards import draft_shards
    from gcl.data.masked import masked

    names = ", ".join(name_of(one.path) for one in inputs)
    begin = f"Written by gcl init from {names}. Every line is a guess with its reason: change what is wrong."
    place = partial(relative, folder=target.parent)
    settings, shards = (
        next((one for one in inputs if one.kind is kind), None) for kind in (Kind.marqtune, Kind.shards)
    )
    if settings is not None:
        from gcl.data.importers.marqtune import write_catalog

        write_catalog(settings.files[0], target, name=name)
        say(f"{settings.files[0].name}: Marqtune's settings, translated")
        return True, []
    if shards is not None:
        draft = draft_shards(shards, name=name, place=place, begin=begin)
        if len(inputs) > 1:
            draft.notes.append("shards are a catalog by themselves: the other files are not used")
    elif options.like == "img2dataset":
        raise ConfigError(f"like=img2dataset reads shards (.tar), but {names} is not one.")
    else:
        draft = draft_tables(inputs, name=name, like=options.like, place=place, begin=begin)
    for url in (one.path for one in inputs if masked(one.path) != one.path):
        os.environ[variable_of(url)] = url  # for what this command still does
        draft.notes.append(
            f"the URL of {name_of(url)} has a password or key, which no file keeps: before other commands, export "
            f"{variable_of(url)}='https://…'"
        )
    for line in draft.told:
        say(line)
    write_text(target, draft.text)
    return draft.trainable, draft.notes


def _batch_size(catalog: Catalog, cache_dir: str) -> list[str]:
    """A setting for a catalog that has fewer training pairs than a model's usual batches hold."""
    from gcl.data.prepare.prepare import prepare
    from gcl.data.store.prepared import read_index

    try:
        pairs = read_index(prepare(catalog, cache_dir, report=lambda _: None))["counts"]["training_pairs"]
    except (ValueError, KeyError, OSError):  # the doctor says it better
        return []
    return [f"train.batch_size={max(2, 1 << (pairs // 4).bit_length() - 1)}"] if 8 <= pairs < _USUAL_BATCH else []


def _folder(options: InitOptions) -> Path:
    """The folder of one's own YAMLs: not gcl's own, whose paths start elsewhere."""
    folder = Path(options.config_dir).expanduser().absolute()
    return folder.with_name("my_conf") if folder.resolve() == conf_folder().resolve() else folder


def _name(options: InitOptions, path: str) -> str:
    first = Path(path.split("?")[0].rstrip("/"))
    stem = re.sub(r"[*?{}]", "", first.name).split(".")[0]
    alone = "://" in path or first.parent.absolute() == Path.cwd()
    if not alone and first.parent.name and (not stem or _GENERIC.fullmatch(stem)):
        stem = first.parent.name
    stem = re.sub(r"[\W_\d]+$", "", stem) or stem
    given = options.name or re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-").lower() or "catalog"
    if (conf_folder() / "data" / f"{given}.yaml").is_file():
        if options.name:
            raise ConfigError(f"name={given}: gcl has a catalog of this name itself (data={given}); give another.")
        given = f"my_{given}"
    return given


def _shown(place: Path) -> str:
    """A path relative to the working folder, where it is in it."""
    try:
        return str(place.relative_to(Path.cwd()))
    except ValueError:
        return str(place)
