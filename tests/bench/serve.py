"""Load on `gcl search`: real server processes on a finished run, a client with many connections, interleaved rounds.

    python tests/bench/serve.py outputs/demo/tiny/…                      this checkout alone
    python tests/bench/serve.py outputs/demo/tiny/… --other ../before    and another checkout, round by round

Every request is a search nobody asked before, so that no cache answers it. The client needs a part of the machine
itself; only the ratio of two checkouts in one call says something about the code.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

WORDS = "red blue black leather cotton running winter summer shoes boots bag tee jacket watch lamp mug wallet".split()


def server(checkout: Path, run: str, cache: str | None) -> tuple[subprocess.Popen, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gcl.cli", "search", f"run={run}", f"port={port}"]
    command += [f"cache_dir={cache}"] if cache else []
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    with urllib.request.urlopen(_when_bound(process, port), timeout=600) as answer:
        assert answer.status == 200
    return process, port


def _when_bound(process: subprocess.Popen, port: int) -> str:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}/api/catalog"
        time.sleep(0.1)
    raise SystemExit(f"the server ended with {process.returncode}")


def cpu_seconds(process: subprocess.Popen) -> float:
    """What a process has used so far (Linux); on a busy machine its ratio says more than requests per second."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


async def ask(port: int, texts: itertools.count, until: float, seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        number = next(texts)
        words = [WORDS[number // len(WORDS) ** place % len(WORDS)] for place in range(3)]
        text = quote(" ".join([*words, str(number)]))
        start = time.perf_counter()
        writer.write(f"GET /api/search?text={text}&k=10 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        seconds.append(time.perf_counter() - start)
    writer.close()


async def load(port: int, connections: int, length: float, texts: itertools.count) -> list[float]:
    seconds: list[float] = []
    until = time.perf_counter() + length
    await asyncio.gather(*(ask(port, texts, until, seconds) for _ in range(connections)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--cache", help="the folder with prepared catalogs, if it is not the run's own")
    parser.add_argument("--other", type=Path, help="another checkout to compare with")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    checkouts = {"this": Path(__file__).resolve().parents[2], **({"other": given.other} if given.other else {})}
    servers = {name: server(path, given.run, given.cache) for name, path in checkouts.items()}
    found: dict[str, list[float]] = {name: [] for name in servers}
    used = dict.fromkeys(servers, 0.0)
    texts = itertools.count()
    try:
        for number in range(given.rounds + 1):
            for name, (process, port) in servers.items():
                before = cpu_seconds(process)
                seconds = asyncio.run(load(port, given.connections, given.seconds, texts))
                if number:  # the first round warms up
                    found[name] += seconds
                    used[name] += cpu_seconds(process) - before
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
    rate = {name: len(seconds) / (given.rounds * given.seconds) for name, seconds in found.items()}
    for name, seconds in found.items():
        seconds.sort()
        half, most = (seconds[int(share * len(seconds))] for share in (0.5, 0.99))
        each = 1000 * used[name] / len(seconds)
        print(f"{name:6}{rate[name]:8.1f} requests/s   median {half:.3f} s   p99 {most:.3f} s   CPU {each:.1f} ms each")
    if given.other:
        print(f"this/other: {rate['this'] / rate['other']:.2f}; load of the machine {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
