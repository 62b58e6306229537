"""The search service is tested on the shop of the page's tests, whose fixtures it shares, and as a process."""

import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.page_shop import *  # noqa: F403


@dataclass
class Server:
    """A running service; `seconds`: how long a request may take to come in, `said`: what it wrote to stderr."""

    port: int
    seconds: float
    process: subprocess.Popen
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    pytest.importorskip("uvicorn", reason="the search page needs the extra: pip install 'gcl-trainer[serve]'")
    seconds = 3.0
    tests = Path(__file__).parent.parent
    log = tmp_path_factory.mktemp("server") / "stderr"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    command = [sys.executable, "-m", "helpers.search_server", str(seconds)]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    try:
        port = process.stdout.readline().strip()
        assert port, log.read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/catalog", timeout=900) as answer:
            assert answer.status == 200, "who connects while the models load is answered afterwards"
        yield Server(int(port), seconds, process, log)
    finally:
        process.terminate()
        process.wait(900)
        process.stdout.close()
