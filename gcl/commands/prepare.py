"""`gcl prepare data=…`: the catalog checked and written as shards, without training anything.

`part=2/8` does the second of eight pieces of the heavy work (reading, downloading, decoding and shrinking images), each
piece on any machine that reaches the cache folder; `gcl prepare` without it puts them together. `engine=ray` does the
same pieces on Ray and puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.distributed.engines import On, engine_of
from gcl.errors import ConfigError, one_of
from gcl.options import free, number
from gcl.run.console import say, speak_plainly

_ENGINES = ("local", "ray", "daft", "spark")
_PIECES = 64


@dataclass
class PrepareOptions:
    """Options of `gcl prepare`."""

    part: str | None = None
    """One part of the heavy work, for example 2/8 for the second of eight; null: all of it, or what the parts left."""
    engine: str = free("local", ", ".join(_ENGINES), *_ENGINES)
    """Where the heavy work is done: in this process, or in pieces on Ray, Daft or Spark."""
    workers: int | None = number(None, least=1, most=10_000)
    """How many pieces the engine does at once; null: as many as it can."""
    pieces: int | None = number(None, least=1, most=100_000)
    """How many pieces an engine's work has; null: 64. What a killed worker did of its piece is done again; every
    piece reads the tables."""


def run(options: PrepareOptions, overrides: Overrides) -> None:
    config = overrides.config()
    on = engine_of(options.engine, _ENGINES, options.workers)
    if on.here and options.pieces is not None:
        others = [name for name in _ENGINES if name != options.engine]
        raise ConfigError(f"pieces={options.pieces}: engine={options.engine} makes none; {one_of(others)} would.")
    if options.part is None:
        prepare_command(config, None if on.here else on, options.pieces or _PIECES)
        return
    if not on.here:
        raise ConfigError("part= is one piece, done here; engine= does all of them: leave one of the two out.")
    if config.data.mix:
        raise ConfigError(
            f"part= divides one catalog, and this is a mix: prepare each of {', '.join(config.data.mix)} by itself."
        )
    speak_plainly()
    from gcl.data.prepare.parts import parse_part
    from gcl.data.prepare.prepare import prepare_part

    folder = prepare_part(config.data, config.cache_dir, parse_part(options.part))
    if folder is None:
        say(f"Part {options.part} has nothing to do: {config.data.name} is prepared already.")
    else:
        say(f"Part {options.part} is done: {folder}. Once all parts are, gcl prepare without part= puts them together.")


def prepare_command(config: RunConfig, on: On | None = None, pieces: int = 1) -> None:
    speak_plainly()
    from gcl.data.prepare.prepare import Pieces, prepare

    for catalog in config.data.catalogs.values() if config.data.mix else [config.data]:
        told: list[str] = []
        folder = prepare(
            catalog, config.cache_dir, report=told.append, pieces=None if on is None else Pieces(on, pieces)
        )
        say("\n".join(told or [f"Prepared already: {folder}"]))
