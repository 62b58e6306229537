"""`gcl train … trainer=dry`: the run on paper, printed as one table."""

from __future__ import annotations

from gcl.config.schema import RunConfig
from gcl.files.progress import doing
from gcl.lit.settings import DryConfig
from gcl.run.console import say, speak_plainly
from gcl.run.early import check_training


def dry_run(config: RunConfig, dry: DryConfig) -> None:
    """Prints what a step would take. Raises ConfigError for a config that training would refuse, and, after the table,
    for a step that does not fit."""
    speak_plainly()
    check_training(config)
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir)
    with doing("Loading torch"):
        from gcl.run.dry import on_paper

    with doing("Measuring a few rows"):
        paper = on_paper(config, dry, prepared)
    limit = dry.memory_gb * 1e9
    say(f"\n{paper.table(limit).text()}")
    paper.check(limit)
