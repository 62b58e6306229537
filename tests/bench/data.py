"""The data plane against its peers, in one run:

    python tests/bench/data.py [reading] [text] [pictures] [loader] [store] [memory]

    reading    raw samples of the same tars: webdataset, litdata                          goal 8x, not behind
    text       records -> tokens -> batches of text-only training data: stock webdataset  goal 5x
    pictures   JPEG bytes -> 224 px tensor: open_clip's transform                         goal 2.3x, 2.1x, 2.7x
    loader     samples a second with 0, 1 and 2 workers, of the wall and of CPU time      measured only
    store      `prepare` with store.image_side: decoding and encoding alone               goal 0.8x
    changed    `prepare` of a catalog of which 1 % changed: the whole                     goal below 5 %
    memory     peak memory of `prepare` by rows, carried on to 10 million                 goal below 200 bytes a row

Without words: all but the last two, which take minutes. Times are CPU times of this process where one process works,
and of the wall where several do; run those on an idle machine.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

PARTS = ("reading", "text", "pictures", "loader", "store", "changed", "memory")


def main(words: list[str]) -> int:
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    if unknown := set(words) - set(PARTS):
        raise SystemExit(f"There is no part {min(unknown)!r}; there is {', '.join(PARTS)}.")
    missed = 0
    for name in words or PARTS[:-2]:
        print(f"{name}")
        reached = import_module(f"data_{name}").run()
        missed += reached is False
        if reached is not None:
            print(f"  goal {'reached' if reached else 'MISSED'}")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
