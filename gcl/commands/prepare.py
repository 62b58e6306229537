"""`gcl prepare data=…`: the catalog checked and written as shards, without training anything.

`part=2/8` does the second of eight pieces of the heavy work (reading, downloading, decoding and shrinking pictures),
each piece wherever the cache folder can be reached; `gcl prepare` without it puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence

from gcl.config.compose import compose, typed
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.run.console import say, speak_plainly


def prepare_command(config: RunConfig) -> None:
    speak_plainly()
    from gcl.data.prepare.prepare import prepare

    for catalog in config.data.catalogs.values() if config.data.mix else [config.data]:
        say(f"Prepared: {prepare(catalog, config.cache_dir)}")


def prepare_words(words: Sequence[str], config_dir: str | None) -> None:
    parts = [word.partition("=")[2] for word in words if word.startswith("part=")]
    config = typed(compose([word for word in words if not word.startswith("part=")], config_dir=config_dir))
    if not parts:
        prepare_command(config)
        return
    if config.data.mix:
        raise ConfigError(f"part= divides one catalog: prepare each of {', '.join(config.data.mix)} by itself.")
    speak_plainly()
    from gcl.data.prepare.parts import parse_part
    from gcl.data.prepare.prepare import prepare_part

    folder = prepare_part(config.data, config.cache_dir, parse_part(parts[-1]))
    say(f"Part {parts[-1]} checked: {folder}. When all are, gcl prepare puts them together.")
