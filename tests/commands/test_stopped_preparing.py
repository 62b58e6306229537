"""Stopped while a catalog is prepared, a command says so in a sentence and leaves nothing unfinished."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

SLOW = """
import pathlib, time
def write(folder):
    if not pathlib.Path("go").exists():
        pathlib.Path("begun").touch()
        time.sleep(900)
    (folder / "products.csv").write_text("product_id,title\\n" + "".join(f"{i},shoe {i}\\n" for i in range(40)))
"""
WORDS = ["prepare", "data.name=slow", "data.generator=slow:write", "data.products=products.csv"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
@pytest.mark.parametrize("signum, ignored", [(signal.SIGHUP, False), (signal.SIGTERM, False), (signal.SIGHUP, True)])
def test_stopped_while_preparing(tmp_path, signum, ignored):
    (tmp_path / "slow.py").write_text(SLOW)
    left = [
        tmp_path / "prepared" / f".slow-source.{host}.partial" for host in ("a.1", f"{socket.gethostname()}.2", "b.3")
    ]
    for folder in left:
        folder.mkdir(parents=True)
    os.utime(left[0], (0, 0))  # of a generation that was killed long ago, and of one on this machine
    code = "import sys; from gcl.cli import main; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, *WORDS]
    child = subprocess.Popen(
        words, cwd=tmp_path, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        preexec_fn=(lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )  # fmt: skip
    end = time.monotonic() + 900
    while not (tmp_path / "begun").exists():
        assert child.poll() is None and time.monotonic() < end, child.communicate()[1]
        time.sleep(0.05)
    child.send_signal(signum)
    if ignored:  # nohup: it outlives its terminal
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=900)[1]
    assert child.returncode == 143, said
    assert "gcl: Interrupted. Finished work is kept" in said and "Traceback" not in said
    assert list((tmp_path / "prepared").glob(".*.partial")) == left[2:]  # another machine may still be at work
