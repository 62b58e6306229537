"""A checkpoint is whole or does not count: kills, full disks, read-only folders, changed bytes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gcl.lit.checkpoint import checkpoint_step, read_checkpoint, write_checkpoint


def state(step, size=1000):
    return {"global_step": step, "weight": torch.full((size,), float(step))}


def test_written_and_read_back(tmp_path):
    path = tmp_path / "a" / "last.ckpt"
    write_checkpoint(state(3), path)
    assert checkpoint_step(path) == 3
    assert torch.equal(read_checkpoint(path)["weight"], state(3)["weight"])
    done = json.loads((path.parent / "last.ckpt.DONE").read_text())
    assert done["size"] == path.stat().st_size and set(done) == {"size", "sha256", "step"}
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.DONE"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("no file", "there is no such file"),
        ("no DONE", "last.ckpt.DONE, which is written after it, is missing"),
        ("cut", r"it has [\d,]+ of [\d,]+ bytes"),
        ("one bit", "its content is not what was written"),
        ("DONE cut", "last.ckpt.DONE cannot be read"),
        ("DONE of another", "last.ckpt.DONE cannot be read"),
    ],
)
def test_what_is_not_whole_does_not_count(tmp_path, harm, said):
    path, done = tmp_path / "last.ckpt", tmp_path / "last.ckpt.DONE"
    write_checkpoint(state(3), path)
    if harm == "no file":
        path.unlink()
    elif harm == "no DONE":
        done.unlink()
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "one bit":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif harm == "DONE cut":
        done.write_text(done.read_text()[:-9])
    else:
        done.write_text("[]")
    assert checkpoint_step(path) is None
    with pytest.raises(ValueError, match=f"not a complete checkpoint: {said}. Copy both files again"):
        read_checkpoint(path)


def test_only_tensors_and_plain_values_are_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    path = tmp_path / "last.ckpt"
    write_checkpoint({"global_step": 1, "evil": Evil()}, path)
    with pytest.raises(Exception, match="[Ww]eights"):
        read_checkpoint(path)


def refused(path, new, older):
    """Saving fails in a sentence; the one before it is untouched and nothing half is left."""
    with pytest.raises(OSError, match="could not be saved: .*free space or choose another run_dir"):
        write_checkpoint(new, path)
    assert checkpoint_step(path) == older
    if path.parent.is_dir():
        assert not [p for p in path.parent.iterdir() if p.name.endswith(".new")]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    refused(tmp_path / "checkpoints" / "last.ckpt", state(1), None)


def test_a_limit_on_file_size(tmp_path):
    path = tmp_path / "last.ckpt"
    write_checkpoint(state(3), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        refused(path, state(4, size=1 << 20), 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_checkpoint(state(4), path)
    assert checkpoint_step(path) == 4


def test_a_full_disk(disk):
    folder = disk("1m")
    write_checkpoint(state(3), folder / "last.ckpt")
    refused(folder / "last.ckpt", state(4, size=1 << 19), 3)
    write_checkpoint(state(5), folder / "last.ckpt")
    assert checkpoint_step(folder / "last.ckpt") == 5


def test_a_read_only_file_system(disk):
    folder = disk("1m")
    write_checkpoint(state(3), folder / "last.ckpt")
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    refused(folder / "last.ckpt", state(4), 3)


def test_killed_while_writing_the_older_stays(tmp_path):
    """A process that writes one checkpoint after the other is killed at many moments: a whole one is always there."""
    path = tmp_path / "last.ckpt"
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from gcl.lit.checkpoint import write_checkpoint\n"
        "import os\n"
        "for line in sys.stdin:\n"
        "    pid = os.fork()\n"
        "    if pid: print(pid, flush=True); print(os.waitpid(pid, 0), flush=True); continue\n"
        "    step = int(line)\n"
        "    while True:\n"
        "        step += 1\n"
        "        state = {'global_step': step, 'weight': torch.full((1 << 18,), float(step))}\n"
        "        write_checkpoint(state, Path(sys.argv[1]))\n"
    )
    root = str(Path(__file__).parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path), root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    step = 0
    for trial in range(12):
        writer.stdin.write(f"{step}\n")
        writer.stdin.flush()
        pid = int(writer.stdout.readline())
        end = time.monotonic() + 900
        while (checkpoint_step(path) or 0) <= step and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.0015 * trial)
        os.kill(pid, signal.SIGKILL)
        assert writer.stdout.readline().startswith(f"({pid}")
        found = checkpoint_step(path)
        assert found is not None and found > step, f"trial {trial}: {sorted(p.name for p in tmp_path.iterdir())}"
        assert float(read_checkpoint(path)["weight"][0]) == found
        step = found
    writer.stdin.close()
    writer.wait(900)


@pytest.mark.parametrize("killed_after", range(1, 4))
def test_every_point_between_the_renames(tmp_path, monkeypatch, killed_after):
    """A kill after each file system operation at the end of a write; then another write, killed there again."""
    path = tmp_path / "last.ckpt"
    write_checkpoint(state(1), path)

    class Killed(BaseException):
        pass

    for step, allowed in ((2, killed_after), (3, killed_after)):
        count, replace = 0, os.replace

        def dying(source, target, replace=replace, allowed=allowed):
            nonlocal count
            count += 1
            if count == allowed:
                raise Killed
            replace(source, target)

        monkeypatch.setattr(os, "replace", dying)
        try:
            write_checkpoint(state(step), path)
        except Killed:
            pass
        monkeypatch.undo()
        found = checkpoint_step(path)
        assert found is not None and float(read_checkpoint(path)["weight"][0]) == found
    write_checkpoint(state(9), path)
    assert checkpoint_step(path) == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "last.ckpt.DONE"]
