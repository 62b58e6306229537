"""Training samples a second of gcl beside open_clip_train on the same shards and the same tiny model, one thread.

    python tests/bench/train.py                          # about 15 minutes
    python tests/bench/train.py --only log --repeats 1   # a scenario alone
    python tests/bench/train.py --only losses            # the comparison of losses alone, a minute

open_clip_train runs as it is in a process of its own, with the webdataset it needs (0.2.86; pip puts it into --cache)
first on the path. Each side runs two lengths in turns; the slope of process CPU time over steps leaves start-up out.
Ours trains as `gcl train` does, with all its watching and logging; both sides see random parts of the pictures.

plain   different texts that fill the context, different PNG pictures of the model's size: nothing to save. Goal 1.0
photos  different JPEG photos of 500 px, different titles of 7.4 tokens. Goal 1.5
log     the same photos and titles, each several times, as in a log of searches. Goal 1.5
losses  first steps on identical batches from identical weights. Goal: differences of at most 1e-5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from train_inputs import SIDE, Shards, write_model, write_shards

WEBDATASET = "webdataset==0.2.86"
BESIDE = ["pandas", "python-dateutil", "pytz", "tzdata", "six"]  # open_clip_train imports pandas
SCENARIOS = {
    "plain": (Shards(512, SIDE, "PNG", long=True), 1.0),
    "photos": (Shards(512, 500), 1.5),
    "log": (Shards(512, 500, products=96, queries=128), 1.5),
}


class Side:
    """A contender's process."""

    def __init__(self, name: str, model: Path, paths: list[str], log: Path) -> None:
        here = Path(__file__).resolve()
        path = os.pathsep.join([*paths, str(here.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(here.with_name("train_side.py")), name, str(model)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(log, "w"), text=True, env=environment,
        )  # fmt: skip

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.process.args[2]} ended; the last of what it said:\n{self.log.read_text()[-3000:]}")
        return json.loads(answer)


def older_webdataset(cache: Path) -> str:
    """A folder with the webdataset that open_clip_train runs with; pip fills it the first time."""
    target = cache / WEBDATASET
    if not (target / "webdataset").is_dir():
        packages = [WEBDATASET, *([] if find_spec("pandas") else BESIDE)]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *packages]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip()[-500:]
            raise SystemExit(f"open_clip_train needs {' and '.join(packages[:2])}, which pip could not bring: {why}")
    return str(target)


def compare_speed(name: str, sides: dict[str, Side], folder: Path, given: argparse.Namespace) -> None:
    shards, goal = SCENARIOS[name]
    pattern = write_shards(folder / name, shards)
    short, long = given.steps
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides.values():
        side.ask(shards=pattern, batch=given.batch, steps=1)  # imports, prepares, fills caches
    for _ in range(given.repeats):
        seconds = {}
        for steps in (short, long):
            for side, process in sides.items():
                seconds[side, steps] = process.ask(shards=pattern, batch=given.batch, steps=steps)["seconds"]
        for side in sides:
            rates[side].append((long - short) * given.batch / (seconds[side, long] - seconds[side, short]))
    ours, peer = (statistics.median(rates[side]) for side in ("ours", "peer"))
    ratio = statistics.median(a / b for a, b in zip(rates["ours"], rates["peer"], strict=True))
    print(f"{name:7s} gcl {ours:6.1f} samples/s   open_clip_train {peer:6.1f}   {ratio:.2f}x   goal {goal}", flush=True)


def compare_losses(sides: dict[str, Side], folder: Path, batch: int, steps: int = 5) -> None:
    pattern = write_shards(folder / "losses", Shards(batch * steps, SIDE))
    record = str(folder / "batches.pt")
    peer = sides["peer"].ask(shards=pattern, batch=batch, steps=steps, record=record)["losses"]
    ours = sides["ours"].ask(shards=pattern, batch=batch, steps=steps, replay=record)
    for step, (a, b) in enumerate(zip(ours["losses"], peer, strict=True)):
        print(f"losses  step {step}   gcl {a:.7f}   open_clip_train {b:.7f}   difference {abs(a - b):.1e}")
    most = max(abs(a - b) for a, b in zip(ours["losses"], peer, strict=True))
    print(f"losses  largest difference {most:.1e}   goal 1e-5   (pixels differ by {ours['pixels']:.2f} of 255 at most)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*SCENARIOS, "losses"], default=[*SCENARIOS, "losses"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs=2, default=[2, 22], metavar=("SHORT", "LONG"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "gcl-bench")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {"ours": [], "peer": [older_webdataset(given.cache)]}
        write_model(folder / "model")
        sides = {side: Side(side, folder / "model", paths[side], folder / f"{side}.log") for side in paths}
        for scenario in given.only:
            if scenario == "losses":
                compare_losses(sides, folder, given.batch)
            else:
                compare_speed(scenario, sides, folder, given)
        for side in sides.values():
            side.process.stdin.close()
            side.process.wait()


if __name__ == "__main__":
    main()
