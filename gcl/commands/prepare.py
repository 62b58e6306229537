"""`gcl prepare data=…`: the catalog checked and written as shards, without training anything."""

from __future__ import annotations

from gcl.commands.say import say, speak_plainly
from gcl.config import RunConfig


def prepare_command(config: RunConfig) -> None:
    speak_plainly()
    from gcl.data.prepare import prepare

    folder = prepare(config.data, config.cache_dir)
    say(f"Prepared: {folder}")
