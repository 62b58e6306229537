"""Peak memory of `prepare` by rows: two sizes in processes of their own; the slope says what ten million rows take.

Every product, query and pair is another one: the worst case, in which nothing is merged. A row is a row of a table, and
one pair, one product and one query come with two of them. One number of rows alone, which may take half an hour:

    python tests/bench/data_memory.py 20000000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

GOAL = 200  # bytes a row
SIZES = (200_000, 600_000)
_CHILD = """
import sys
from gcl.data.catalog import Catalog
from gcl.data.prepare.prepare import prepare
from gcl.schema import Field
given = Catalog(name="text", root=sys.argv[1], products="products.csv", pairs="pairs.csv", query={"query": Field()},
                document={"title": Field()}, score="score")
prepare(given, sys.argv[1] + "/out", progress=False, report=lambda line: None)
# getrusage would know the parent's peak as well
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def write(folder: Path, count: int) -> None:
    with open(folder / "products.csv", "w") as products, open(folder / "pairs.csv", "w") as pairs:
        products.write("product_id,title\n")
        pairs.write("query,product_id,score\n")
        for number in range(count):
            products.write(f"sku-{number:09d},product {number} of the shop in blue cotton\n")
            pairs.write(f"blue cotton {number},sku-{number * 7919 % count:09d},{1 + number % 100}\n")


def peak(count: int) -> int:
    """Bytes of a fresh process that prepares `count` products and as many pairs."""
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), count)
        root = Path(__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, place], cwd=root, capture_output=True, text=True, check=True
        )
    return 1024 * int(done.stdout)


def slope(sizes: tuple[int, int] = SIZES) -> tuple[float, list[int]]:
    """Bytes a row of either table, and both peaks."""
    peaks = [peak(count) for count in sizes]
    return (peaks[1] - peaks[0]) / (2 * (sizes[1] - sizes[0])), peaks


def run(sizes: tuple[int, int] = SIZES) -> bool:
    each, peaks = slope(sizes)
    for count, value in zip(sizes, peaks, strict=True):
        print(f"  {2 * count:>10,} rows: {value / 2**20:,.0f} MiB at most")
    print(
        f"  {each:.0f} bytes a row; 10,000,000 rows: about {(peaks[0] + each * (1e7 - 2 * sizes[0])) / 2**20:,.0f} MiB"
    )
    return each <= GOAL


if __name__ == "__main__":
    rows = int(sys.argv[1])
    print(f"{rows:,} rows: {peak(rows // 2) / 2**20:,.0f} MiB at most")
