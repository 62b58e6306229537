"""Files are whole or not there, digests are hashlib's, one process holds a lock, long jobs say how far they are."""

import errno
import hashlib
import io
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from gcl.files import progress
from gcl.files.atomic import replacing, write_bytes, write_json, write_text
from gcl.files.digest import file_sha256, text_sha256
from gcl.files.lock import locked
from gcl.files.progress import Stages, above_progress, counted, doing

posix = pytest.mark.skipif(os.name == "nt", reason="flock is Unix's")


def test_a_file_appears_when_it_is_whole_and_the_folder_holds_nothing_else(tmp_path):
    path = tmp_path / "new" / "table.csv"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.parent == path.parent and not path.exists()
    assert path.read_text() == "half" and [item.name for item in path.parent.iterdir()] == ["table.csv"]


def test_after_an_error_the_old_file_is_there_and_the_new_one_is_gone(tmp_path):
    path = write_text(tmp_path / "results.md", "old\n")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old\n" and list(tmp_path.iterdir()) == [path]


@posix
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = write_text(tmp_path / "results.md", "old\n")
    code = f"""
import os, signal
from gcl.files.atomic import replacing
with replacing({str(path)!r}) as temporary:
    temporary.write_text("new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode < 0
    assert path.read_text() == "old\n"


def test_the_content_is_synchronised_before_it_has_its_name(tmp_path, monkeypatch):
    calls, path = [], tmp_path / "a.json"
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append((os.fstat(descriptor).st_ino, path.exists())))
    write_json(path, {"a": 1})
    assert calls[0] == (path.stat().st_ino, False), "the file, under its temporary name"
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_texts_keep_their_line_ends_and_bytes_are_bytes(tmp_path):
    assert write_text(tmp_path / "t", "a\r\nß\n\udc80").read_bytes() == b"a\r\n\xc3\x9f\n?"
    assert write_bytes(tmp_path / "b", b"\0\r\n").read_bytes() == b"\0\r\n"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "a"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("1" * 10)
        other.write_text("2")
    assert path.read_text() == "1" * 10 and list(tmp_path.iterdir()) == [path]


def test_long_names_fit(tmp_path):
    assert write_text(tmp_path / ("ü" * 120), "x").read_text() == "x"


def test_digests_are_hashlibs(tmp_path):
    data = os.urandom((2 << 20) + 5)
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert text_sha256("ß") == hashlib.sha256("ß".encode()).hexdigest()


def without_locks(kind):
    """What a file system without locks answers."""
    import fcntl

    def flock(descriptor, operation):
        raise OSError(kind, os.strerror(kind))

    fcntl.flock = flock


def add_one(folder, times, no_locks):
    if no_locks:
        without_locks(no_locks)
    for _ in range(times):
        with locked(Path(folder) / "lock", waiting_for="the other"):
            counter = Path(folder) / "counter"
            value = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(value + 1))


@posix
@pytest.mark.parametrize("no_locks", [0, errno.ENOLCK, errno.ENOSYS])
def test_one_process_at_a_time(tmp_path, no_locks):
    (tmp_path / "counter").write_text("0")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=add_one, args=(str(tmp_path), 8, no_locks)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (tmp_path / "counter").read_text() == "24"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"], "no lock file is left"


def hold(path, no_locks, ready):
    if no_locks:
        without_locks(no_locks)
    with locked(Path(path), waiting_for="nothing"):
        ready.set()
        time.sleep(600)


@posix
@pytest.mark.parametrize("no_locks", [0, errno.ENOLCK])
def test_those_who_wait_say_so_and_a_killed_holder_lets_them_on(tmp_path, caplog, monkeypatch, no_locks):
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=hold, args=(str(tmp_path / "lock"), no_locks, ready))
    holder.start()
    assert ready.wait(900)
    if no_locks:
        monkeypatch.setattr("fcntl.flock", None)  # put back afterwards
        without_locks(no_locks)

    class Kills(logging.Handler):
        def emit(self, record):
            holder.kill()
            holder.join()  # a process that nobody waited for would still count as alive

    logger = logging.getLogger("gcl.files.lock")
    handler = Kills()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO), locked(tmp_path / "lock", waiting_for="the shop to be drawn"):
            assert "Another process is at work: waiting for the shop to be drawn" in caplog.text
    finally:
        logger.removeHandler(handler)
        holder.kill()
    if no_locks:
        assert f"remove {tmp_path / 'lock.held'}" in caplog.text


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), locked(tmp_path / "lock", waiting_for="nothing"):
        pass
    tmp_path.chmod(0o700)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def a_terminal(monkeypatch):
    """Not a fixture: pytest puts its own stderr back before a test begins."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "TERMINAL_DELAY", 0.0)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
    return terminal


def a_log(caplog, monkeypatch):
    """The logger's own records, whatever handlers the commands that ran before have given to those above it."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress.logger, "propagate", False)
    monkeypatch.setattr(progress.logger, "handlers", [caplog.handler])
    caplog.set_level(logging.INFO, logger=progress.logger.name)
    return caplog


def test_progress_passes_everything_on_and_counts_it(monkeypatch):
    terminal = a_terminal(monkeypatch)
    assert list(counted(iter("abc"), "letters", unit="letter")) == ["a", "b", "c"]
    assert "letters: 3 letters" in terminal.getvalue()
    assert list(counted([2, 3], "pairs", total=5, size=int)) == [2, 3]
    assert re.search(r"pairs:  40% \|.*\| 2 of 5 rows, \d+\.\d s left", terminal.getvalue())
    assert terminal.getvalue().endswith("\r")  # the line is gone
    before = terminal.getvalue()
    assert list(counted(range(3), "nothing", shown=False)) == [0, 1, 2] and terminal.getvalue() == before


def test_what_is_written_meanwhile_stands_above_the_line(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with doing("loading"), above_progress():
        terminal.write("said\n")
    assert terminal.getvalue().split("\r") == ["", "loading …", " " * 9, "said\n", "loading …", " " * 9, ""]


def test_short_jobs_and_those_of_other_threads_and_ranks_show_nothing(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(list, counted(range(3), "of a thread")).result() == [0, 1, 2]
    with monkeypatch.context() as silent:
        silent.setattr(progress.logger, "isEnabledFor", lambda level: level >= logging.ERROR)
        with doing("of another rank"):
            list(counted(range(3), "of another rank"))
    monkeypatch.setattr(progress, "TERMINAL_DELAY", 900.0)
    assert list(counted(range(1000), "short")) == list(range(1000))
    assert terminal.getvalue() == ""


def test_stages_are_one_line_of_a_terminal(monkeypatch):
    terminal = a_terminal(monkeypatch)
    with Stages("job") as stages:
        stages.begin("reading all")
        stages.begin("adding")
    shown = [part.strip() for part in terminal.getvalue().split("\r") if part.strip()]
    assert list(dict.fromkeys(shown)) == ["job: reading all …", "job: adding …"]
    assert terminal.getvalue().endswith("\r") and "\n" not in terminal.getvalue()


def test_short_stages_are_one_line_of_a_log(caplog, monkeypatch):
    log = a_log(caplog, monkeypatch)
    with Stages("job") as stages:
        stages.begin("reading all")
        stages.begin("adding")
    assert [record.message for record in log.records] == ["job: reading all …"]


def test_a_log_gets_a_line_now_and_then_and_none_of_a_short_job(caplog, monkeypatch):
    log, now = a_log(caplog, monkeypatch), [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def rows(seconds):
        for _ in range(1200):
            now[0] += seconds / 1200
            yield

    with doing("short, too"):
        assert len(list(counted(rows(9.9), "short"))) == 1200
    assert not log.records
    for _ in counted(rows(120.0), "rows of pairs", total=1200, unit="row"):
        pass
    lines = [record.message for record in log.records]
    assert [int(line.split()[3].replace(",", "")) for line in lines[:-1]] == pytest.approx([100, 400, 700, 1000], abs=4)
    assert re.fullmatch(r"rows of pairs: \d+ of 1,200 rows, 2 min left", lines[0])
    assert lines[-1] == "rows of pairs: 1,200 rows in 2 min"
    assert sys.stderr.getvalue() == ""
