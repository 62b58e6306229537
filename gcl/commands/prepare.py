"""`gcl prepare data=…`: the catalog checked and written as shards, without training anything.

`part=2/8` does the second of eight pieces of the heavy work (reading, downloading, decoding and shrinking images), each
piece on any machine that reaches the cache folder; `gcl prepare` without it puts them together.
"""

from __future__ import annotations

from dataclasses import dataclass

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.run.console import say, speak_plainly


@dataclass
class PrepareOptions:
    """Options of `gcl prepare`."""

    part: str | None = None
    """One part of the heavy work, for example 2/8 for the second of eight; null: all of it, or what the parts left."""


def run(options: PrepareOptions, overrides: Overrides) -> None:
    config = overrides.config()
    if options.part is None:
        prepare_command(config)
        return
    if config.data.mix:
        raise ConfigError(
            f"part= divides one catalog, and this is a mix: prepare each of {', '.join(config.data.mix)} by itself."
        )
    speak_plainly()
    from gcl.data.prepare.parts import parse_part
    from gcl.data.prepare.prepare import prepare_part

    folder = prepare_part(config.data, config.cache_dir, parse_part(options.part))
    say(f"Part {options.part} is done: {folder}. Once all parts are, gcl prepare without part= puts them together.")


def prepare_command(config: RunConfig) -> None:
    speak_plainly()
    from gcl.data.prepare.prepare import prepare

    for catalog in config.data.catalogs.values() if config.data.mix else [config.data]:
        told: list[str] = []
        folder = prepare(catalog, config.cache_dir, report=told.append)
        say("\n".join(told or [f"Prepared already: {folder}"]))
