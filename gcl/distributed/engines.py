"""Where independent pieces of work run: here, or on the engine that a shop has. A record per engine.

A piece is a small value, and its work a function of it that leaves files which are whole or not there: an engine may
run a piece again, or two of them at once, and what is there when it starts is not done again. Which worker has which
piece, and what happens to a lost one, is the engine's own business. A new engine is a function and a record in ENGINES.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from gcl.errors import ConfigError, ProcessLost, check_packages, nearest, one_of, sentence_of

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Attempt = Callable[[Any], tuple[Any, str | None]]
"""A piece's work: its result and None, or what went wrong in a sentence."""

_RETRIES = 4  # of a piece whose worker was lost
_RAY_MEMORY = 100 << 20  # bytes of an object store of our own: results are small


@dataclass(frozen=True)
class Engine:
    """name: in `engine=…`. package: its import name, and the extra that installs it; "": none. explanation: for help
    and docs. map: (attempt, pieces, on) -> what each attempt returned, in any order."""

    name: str
    package: str
    explanation: str
    map: Callable[[Attempt, Sequence[Any], On], Iterator[tuple[Any, str | None]]]


@dataclass(frozen=True)
class On:
    """An engine, with at most this many workers; None: as many as it has. gpu: whether a piece has one to itself, where
    there are any."""

    engine: Engine
    workers: int | None = None
    gpu: bool = False

    @property
    def here(self) -> bool:
        """Whether everything runs in this process."""
        return self.engine.name == "local"

    def map(self, function: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
        """The result of every piece, in any order. function: of a module, or a partial of one, that can be pickled.

        Raises ProcessLost with the first sentence about a piece that failed; the others' files stay.
        """
        for result, error in self.engine.map(partial(_attempt, function), pieces, self):
            if error is not None:
                raise ProcessLost(error)
            yield result


def engine_of(name: str, names: Sequence[str], workers: int | None = None, *, gpu: bool = False) -> On:
    """One of the engines `names`. Raises ConfigError for another, where its package is not installed, and for `workers`
    of one that begins none."""
    if name not in names:
        raise ConfigError(f"engine={name}: there is no such engine here.{nearest(name, names)}")
    engine = ENGINES[name]
    if engine.package:
        check_packages(f"engine={name}", [engine.package], engine.name)
    if workers is not None and not engine.package:
        others = [one for one in names if ENGINES[one].package]
        raise ConfigError(f"workers={workers}: engine={name} begins no workers; {one_of(others)} would.")
    return On(engine, workers, gpu)


def _attempt(function: Callable[[Piece], Result], piece: Piece) -> tuple[Result | None, str | None]:
    """Errors travel as sentences: each engine would wrap them in its own way, with the frames of another machine."""
    try:
        return function(piece), None
    except Exception as error:
        return None, sentence_of(error)


def _local(attempt: Attempt, pieces: Sequence[Any], on: On) -> Iterator[tuple[Any, str | None]]:
    return map(attempt, pieces)


def _torchrun(attempt: Attempt, pieces: Sequence[Any], on: On) -> Iterator[tuple[Any, str | None]]:
    """Every rank does its share, and every rank gets all results, its own as they come."""
    from gcl.distributed.ranks import alone, gather_objects, world  # torch, which the pieces of `prepare` need not load

    rank, ranks = world()
    results = []
    with alone():
        for piece in pieces[rank::ranks]:
            results.append(attempt(piece))
            yield results[-1]
    for other, theirs in enumerate(gather_objects(results)):
        yield from theirs if other != rank else ()


def _ray(attempt: Attempt, pieces: Sequence[Any], on: On) -> Iterator[tuple[Any, str | None]]:
    import ray

    def gcl_piece(piece: Any) -> tuple[Any, str | None]:  # Ray takes no partial, and shows this name
        return attempt(piece)

    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {"num_cpus": on.workers, "include_dashboard": False, "object_store_memory": _RAY_MEMORY}
        own = {} if address else own
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    gpus = 1 if on.gpu and ray.cluster_resources().get("GPU") else 0
    task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(gcl_piece)
    left, running = iter(pieces), list[Any]()
    try:
        while True:
            running += [task.remote(piece) for piece in islice(left, (on.workers or len(pieces)) - len(running))]
            if not running:
                return
            done, running = ray.wait(running)
            yield from ray.get(done)
    except ray.exceptions.RayError as error:
        raise ProcessLost(f"Ray gave a piece up after {_RETRIES} retries: {str(error).splitlines()[0]}") from error
    finally:
        for one in running:
            ray.cancel(one, force=True)


def _daft(attempt: Attempt, pieces: Sequence[Any], on: On) -> Iterator[tuple[Any, str | None]]:
    import daft

    def run(column: daft.Series) -> list[bytes]:
        return [pickle.dumps(attempt(pickle.loads(piece))) for piece in column.to_pylist()]

    # In Daft's own processes it waits for a killed one for ever, so that all of one machine are threads.
    binary = daft.DataType.binary()
    done = daft.udf(return_dtype=binary, batch_size=1, concurrency=on.workers, use_process=False)(run)
    frame = daft.from_pydict({"piece": [pickle.dumps(piece) for piece in pieces]})
    if daft.runners.get_or_create_runner().name == "ray":  # the one of a single machine has no partitions
        frame = frame.into_partitions(len(pieces))
    for row in frame.select(done(daft.col("piece")).alias("result")).iter_rows():
        yield pickle.loads(row["result"])


def _spark(attempt: Attempt, pieces: Sequence[Any], on: On) -> Iterator[tuple[Any, str | None]]:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder, begun = SparkSession.builder.appName("gcl"), SparkSession.getActiveSession() is None
    if not SparkConf().contains("spark.master"):  # spark-submit names the shop's own
        builder = builder.master(f"local[{on.workers or '*'},{_RETRIES}]").config("spark.ui.enabled", False)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    try:
        yield from session.sparkContext.parallelize(pieces, len(pieces)).map(attempt).collect()
    finally:
        if begun:
            session.stop()


_ALL = (
    Engine("local", "", "this process", _local),
    Engine("torchrun", "", "the processes that torchrun or SLURM started, one per GPU", _torchrun),
    Engine("ray", "ray", "Ray: the cluster of RAY_ADDRESS, or one of this machine", _ray),
    Engine("daft", "daft", "Daft, on the runner that it is set to", _daft),
    Engine("spark", "pyspark", "Spark: the cluster of spark-submit, or this machine's cores (needs Java)", _spark),
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}
