"""`gcl embed run=… data=… out=…`: the vectors of a catalog of any size, in blocks of Parquet.

1. The catalog is prepared and opened, the model loaded, and the blocks planned (gcl/exports/vectors/blocks.py).
2. The engine writes the blocks; each of its processes loads the model once.
3. When all are there, the folder gets its name.
"""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gcl.config.compose import Overrides
from gcl.config.schema import RunConfig
from gcl.data.store.away import is_away
from gcl.distributed.engines import On, engine_of
from gcl.distributed.launched import launched_rank
from gcl.errors import ConfigError, install
from gcl.exports.settings import Content, VectorType
from gcl.files.progress import counted, doing, several
from gcl.options import free, number
from gcl.run.console import quiet_libraries, say, speak_plainly
from gcl.run.folder import config_of, run_of
from gcl.run.launch import launched_count, launched_ranks

if TYPE_CHECKING:
    from gcl.data.store.store import RecordStore
    from gcl.exports.vectors.blocks import Block, Plan, Work, Written
    from gcl.exports.vectors.write import VectorOptions
    from gcl.model.dual_encoder import DualEncoder

_ENGINES = ("local", "torchrun", "ray")


@dataclass
class EmbedCatalogOptions:
    """Options of `gcl embed`."""

    engine: str = free("local", ", ".join(_ENGINES), *_ENGINES)
    """Where the blocks are embedded: in this process, in those that torchrun started, or on Ray."""
    workers: int | None = number(None, least=1, most=10_000)
    """How many blocks Ray has in work at once; null: as many as it can."""
    embeddings: Content = Content.fused
    """One vector per document, or one per field."""
    dtype: VectorType = VectorType.float32
    """The number type of the vectors."""
    rows: int = number(8192, least=1, most=1_000_000)
    """Documents per block, which is a file, and what a kill can cost of each worker's time."""
    lance: bool = False
    """Whether the vectors are also written as one Lance data set, documents.lance."""


def run(options: EmbedCatalogOptions, overrides: Overrides) -> Path:
    """Embeds a catalog with a run's model; returns the folder."""
    speak_plainly()
    config = config_of(overrides)
    if config.run is None or config.out is None:
        raise ConfigError("Which model, and where to? For example: gcl embed run=outputs/… data=my_catalog out=vectors")
    if config.data.mix:
        first = next(iter(config.data.mix))
        raise ConfigError(f"Vectors are those of one catalog, and this is a mix: name one of them, data={first}.")
    if is_away(config.out):
        raise ConfigError(f"out={config.out}: vectors are written on a disk: name a folder, and copy that afterwards.")
    run_of(config).check_trained()
    if options.lance and find_spec("lance") is None:
        raise ConfigError(f"lance=true needs pylance, which is not installed: {install('lance')}.")
    on = engine_of(options.engine, _ENGINES, options.workers, gpu=True)
    if on.engine.name != "torchrun" and (launched := launched_count()) > 1:
        raise ConfigError(f"{launched} processes were started, which is engine=torchrun, not engine={on.engine.name}.")
    with launched_ranks(config.trainer) if on.engine.name == "torchrun" else nullcontext():
        return _embed(config, options, on)


def _embed(config: RunConfig, options: EmbedCatalogOptions, on: On) -> Path:
    from gcl.data.prepare.mixed import open_catalog

    prepared = open_catalog(config.data, config.cache_dir, report=say)
    with doing("Loading torch"):
        quiet_libraries()
        from gcl.data.store.vector_files import write_lance
        from gcl.exports.vectors.blocks import LANCE, taken
        from gcl.exports.vectors.write import VectorOptions

    out = Path(str(config.out)).resolve()  # a link stays, and its folder is what is replaced
    given = pickle.dumps((replace(config, run=str(Path(str(config.run)).absolute())), prepared.documents))
    wanted = VectorOptions(options.embeddings, options.dtype, rows=options.rows)
    with nullcontext() if launched_rank() else taken(out):
        plan = _planned(given, out, wanted, prepared.fingerprint)
        if plan is not None:
            _carry_out(plan, given, on)
        elif not launched_rank():
            say(f"Embedded already: {out}")
        if options.lance and not launched_rank() and not (target := out / LANCE).exists():
            with doing(f"Writing {target.name}"):
                write_lance(sorted(out.glob("*.parquet")), target)
    return out


def _carry_out(plan: Plan, given: bytes, on: On) -> None:
    to_embed = plan.to_embed
    written = counted(
        on.map(partial(_block, given, plan.work), plan.blocks), "Embedding", total=plan.documents, unit="product",
        size=lambda block: block.rows,
    )  # fmt: skip
    blocks = list(written)
    if not launched_rank():
        plan.finish(blocks)
        counts = ", ".join(f"{count:,} {what}" for what, count in plan.counts.items())
        sizes = f"{plan.documents:,} products in {len(blocks):,} {several('file', len(blocks))}"
        say(f"{plan.out}: {sizes} ({counts}); newly embedded: {to_embed:,}.")


def _planned(given: bytes, out: Path, wanted: VectorOptions, data: str) -> Plan | None:
    """The same on every rank: what lies there is looked at once."""
    from gcl.distributed.ranks import agree, alone, of_first_rank
    from gcl.exports.vectors.blocks import plan_blocks
    from gcl.exports.vectors.write import check_fields

    plan, error = None, None
    with alone():
        if not launched_rank():
            try:
                _, encoder, documents = _opened(given)
                if wanted.content is Content.fused:
                    check_fields(encoder, documents, "document")
                with doing("Looking for what changed"):
                    plan = plan_blocks(encoder, documents, out, wanted, data=data)
            except Exception as caught:
                error = caught
    agree(error)
    return of_first_rank(plan)


@lru_cache(maxsize=1)
def _opened(given: bytes) -> tuple[RunConfig, DualEncoder, RecordStore]:
    """The config, the model and the documents, once per process. given: the config and the documents, pickled."""
    from gcl.run.contestants import device_of, tuned_encoder

    config, documents = pickle.loads(given)
    return config, tuned_encoder(run_of(config), config.data.schema).to(device_of(config)), documents


def _block(given: bytes, work: Work, block: Block) -> Written:
    from gcl.exports.vectors.blocks import write_block
    from gcl.retrieval.embedding.embed import EmbedOptions

    config, encoder, documents = _opened(given)
    options = EmbedOptions(config.evaluate.batch_size, config.train.workers, progress=False)
    return write_block(encoder, documents, work, block, options)
