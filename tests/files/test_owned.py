"""What a process has for hours: a second one is told who has it, and what a dead one left is taken over."""

import json
import logging
import os
import subprocess
import sys
import time

import pytest

from gcl.files import lock
from gcl.files.lock import Owner, owned

posix = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")


@pytest.fixture
def holder(tmp_path):
    """Another process that has tmp_path/.owner."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom gcl.files.lock import owned\n"
        "with owned(Path(sys.argv[1]) / '.owner', what='The folder'):\n"
        "    print('has it', flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "has it\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def elsewhere(tmp_path):
    """The file of an owner on another host."""
    about = {"host": "another", "pid": 7, "began": "1", "since": "yesterday", "beat": 3}
    (tmp_path / ".owner").write_text(json.dumps(about))
    return tmp_path / ".owner"


@posix
def test_a_second_process_is_told_who_the_first_is_and_takes_over_when_it_is_dead(tmp_path, holder, caplog):
    with pytest.raises(ValueError, match=f"The folder is in use by process {holder.pid} on .+, since 20"):
        with owned(tmp_path / ".owner", what="The folder"):
            pass
    assert Owner.read(tmp_path / ".owner").pid == holder.pid
    holder.kill()
    holder.wait()
    with owned(tmp_path / ".owner", what="The folder"):
        assert Owner.read(tmp_path / ".owner").pid == os.getpid()
    assert f"Taking over The folder from process {holder.pid}" in caplog.text
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_it_is_given_back_whatever_happens(tmp_path):
    with pytest.raises(KeyError), owned(tmp_path / ".owner", what="it"):
        raise KeyError
    assert not list(tmp_path.iterdir())


@posix
def test_an_owner_on_another_host_is_alive_while_it_gives_signs_of_life(monkeypatch, elsewhere):
    monkeypatch.setattr(lock, "_SILENCE", 900.0)  # a process may begin slowly
    code = (
        "import json, sys, time\nfrom pathlib import Path\nfrom gcl.files.atomic import write_json\n"
        "about = json.loads(sys.argv[2])\nwhile True:\n"
        "    about['beat'] += 1\n    write_json(Path(sys.argv[1]), about)\n    time.sleep(0.02)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(elsewhere), elsewhere.read_text()])
    try:
        with pytest.raises(ValueError, match="process 7 on another, since yesterday"), owned(elsewhere, what="it"):
            pass
    finally:
        other.kill()
        other.wait()


def test_an_owner_on_another_host_that_gives_none_is_dead(monkeypatch, caplog, elsewhere):
    monkeypatch.setattr(lock, "_SILENCE", 0.6)
    with caplog.at_level(logging.INFO), owned(elsewhere, what="it"):
        pass
    assert "Taking over it from process 7 on another" in caplog.text


def test_the_owner_s_beat_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT", 0.02)
    with owned(tmp_path / ".owner", what="it"):
        end = time.monotonic() + 900
        while Owner.read(tmp_path / ".owner").beat < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert Owner.read(tmp_path / ".owner").beat >= 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}', "\x00"])
def test_a_file_that_names_no_owner_is_replaced(tmp_path, content):
    (tmp_path / ".owner").write_text(content)
    with owned(tmp_path / ".owner", what="it"):
        assert Owner.read(tmp_path / ".owner").pid == os.getpid()
