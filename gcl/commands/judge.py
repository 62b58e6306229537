"""`gcl judge run=…`: people grade what the compared models show and nobody judged, in a page on this machine."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gcl.commands.search import need_serve
from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.errors import ConfigError
from gcl.options import number, path
from gcl.run.console import say, speak_plainly
from gcl.run.early import check_measuring
from gcl.run.folder import config_of

if TYPE_CHECKING:
    from gcl.serve.judge_app import Place
    from gcl.serve.judging import Judging, Pair


@dataclass
class JudgeOptions:
    """Options of `gcl judge`."""

    depth: int = number(10, least=1, most=1000)
    """How many results of each model are judged for every search."""
    twice: float = number(0.2, least=0, most=1)
    """The share of the pairs that a second judge gets as well: the judges' agreement is computed on them."""
    judgments: str | None = path()
    """Judgments that there are already, as gcl evaluate judgments= takes them: nobody is asked for these."""
    host: str = "127.0.0.1"
    """The address at which the page is served; 0.0.0.0 makes it reachable from the network."""
    port: int = number(8766, least=1, most=65_535)
    """The port at which the page is served."""
    hosts: list[str] = field(default_factory=list)
    """Further names under which the page is opened, for example [judge.shop.example] behind a proxy; ["*"]: any."""


def run(options: JudgeOptions, overrides: Overrides) -> None:
    """Serves the page until interrupted; judgments.jsonl and qrels.csv are in out=, or the run's folder."""
    speak_plainly()
    need_serve()
    config = config_of(overrides)
    if config.evaluate.sets or config.evaluate.benchmark is not None:
        raise ConfigError("gcl judge is for one catalog: leave evaluate.sets and the benchmark out.")
    folder = Path(config.out or config.run or Path("outputs") / config.data.name / "judging")
    if config.models:
        config = replace(config, run=None)  # these are compared in place of base and tuned
    check_measuring(config, [config.data], overrides.config_dir)

    from gcl.files.lock import owned
    from gcl.serve.listen import LOOPBACK, close, listen, names_of

    sockets = listen(options.host, options.port)
    try:
        with owned(folder / ".judging", what=f"The folder of judgments {folder}"):
            from gcl.serve import server
            from gcl.serve.judge_app import build_app
            from gcl.serve.judging import Judging, Ledger

            pairs, places = pool_of(config, options, overrides.config_dir)
            ledger = Ledger(folder / "judgments.jsonl")
            judging = Judging(pairs, ledger, twice=options.twice)
            export = judging.export(folder / "qrels.csv")
            app = build_app(
                judging, places, name=config.data.name, export=export, hosts=names_of(options.host, options.hosts)
            )
            host = f"[{options.host}]" if ":" in options.host.strip("[]") else options.host
            say(f"\n{len(pairs):,} pairs to judge at http://{host}:{options.port}   (stop with Ctrl-C)")
            if options.host not in LOOPBACK:
                say(f"host={options.host}: everyone who can reach this machine can judge; there is no password.")
            server.serve(app, sockets)
            _conclude(judging, export, overrides)
            ledger.close()
    finally:
        close(sockets)


def pool_of(config: RunConfig, options: JudgeOptions, config_dir: str | None) -> tuple[list[Pair], list[Place]]:
    """What the models show and nobody judged, in the order of being judged, and the rows of each pair."""
    from gcl.data.prepare.mixed import open_catalog
    from gcl.retrieval.analysis.pool import in_order, pooled
    from gcl.retrieval.analysis.verdict import is_seen
    from gcl.retrieval.tasks.judgments import read_judgments
    from gcl.run.contestants import contestants
    from gcl.run.measurement import embedding_cache, frozen_features, measurement_of
    from gcl.serve.judge_app import Place
    from gcl.serve.judging import Pair

    prepared, part, depth = open_catalog(config.data, config.cache_dir), config.evaluate.part, options.depth
    known = read_judgments(options.judgments) if options.judgments else None
    measurement = measurement_of(
        config.evaluate, config.data, prepared, cache=embedding_cache(config), judgments=known
    )  # fmt: skip
    tasks = {task.name.removesuffix(f".{part}"): task for task in measurement.opened(part)}
    tasks = {name: task for name, task in tasks.items() if not is_seen(name)} or tasks  # those cannot move a verdict
    if all(task.judgments.complete for task in tasks.values()):
        raise ConfigError(
            f"There is nothing to judge: the judgments of {config.data.name} are complete (complete: true), and what "
            "they do not list is irrelevant."
        )
    rows: dict[str, list] = {name: [] for name in tasks}
    for entry in contestants(config, config.data, config_dir=config_dir):
        say(f"Searching with {entry.label}.")
        measurement.features = frozen_features(entry.encoder, prepared, config)
        for name, result in measurement(entry.encoder, part, [f"ndcg@{depth}"], k=depth).items():
            if name in tasks:
                rows[name].append(result.row)
    pools = [
        pooled(rows[name], task.judgments, documents=len(task.corpus), depth=depth) for name, task in tasks.items()
    ]
    named, pairs, places = list(tasks.items()), [], []
    for which, query, document in in_order(pools):
        name, task = named[which]
        pairs.append(Pair(name, str(task.queries.ids[query]), str(task.corpus.ids[document])))
        places.append(Place(task, query, document))
    if not pairs:
        raise ConfigError(
            f"Everything is judged: the first {depth} results of every search. A larger depth= shows more."
        )
    return pairs, places


def _conclude(judging: Judging, export: Path, overrides: Overrides) -> None:
    """What there is now, and what to do with it."""
    state = judging.progress("")
    by = f"{len(state['judges'])} judge{'' if len(state['judges']) == 1 else 's'}"
    grades = sum(state["judges"].values())
    say(f"\n{grades:,} grades by {by}: {state['graded']:,} of {state['pool']:,} pairs.")
    if state["alpha"] is not None:
        say(f"Agreement (Krippendorff's alpha) on {state['twice']:,} pairs graded by several: {state['alpha']:.2f}")
    run = any(one.startswith("run=") for one in overrides.settings)
    keys = ("run=", "data=") if run else ("data=", "model=", "models=")
    words = ["--config-dir", overrides.config_dir] if overrides.config_dir else []
    words += [one for one in overrides.settings if one.startswith(keys)]
    say(f"{export}\n  gcl evaluate {shlex.join([*words, f'judgments={export}'])}")
