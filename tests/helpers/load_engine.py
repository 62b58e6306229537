"""Loads an engine from files, as `gcl deploy` does: python load_engine.py ENGINE FOLDER [BATCHES].

After so many batches the process is killed, at once: what the last one brought is there, and perhaps not noted.
"""

import os
import signal
import sys
from pathlib import Path

from gcl.exports.engines.address import Place
from gcl.exports.engines.engine import Layout
from gcl.exports.engines.load import Load
from gcl.exports.engines.payload import Column, batches
from gcl.exports.engines.registry import engine_of

ROWS, WIDTH, BATCH = 60, 8, 10


def layout():
    return Layout("products", WIDTH, ROWS, {"title": Column.text})


if __name__ == "__main__":
    engine, folder, left = engine_of(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], "0")[0])
    collection = engine.collection(layout(), folder, None)
    add = collection.add

    def adds(batch, *, again=False):
        global left
        add(batch, again=again)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    collection.add = adds
    files, payload = [folder / "vectors.parquet"], folder / "payload.parquet"
    load = Load(Place(engine, folder, None), layout(), compared=False, replace=False)
    load.run(collection, lambda start: batches(files, payload, rows=BATCH, start=start))
    collection.close()
