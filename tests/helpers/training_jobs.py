"""Training processes that tests start, watch and kill, and what they read of a run."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

TESTS = Path(__file__).parents[1]


class Job:
    """The processes of one run, one a rank."""

    def __init__(self, zygote, run, pids, logs):
        self.zygote, self.run, self.pids, self.logs = zygote, run, pids, logs

    def log(self, rank=0):
        return (self.logs / f"rank{rank}.log").read_text()

    def steps(self):
        return read_steps(self.run)

    def until(self, condition, seconds=900):
        """Waits for a condition while the processes run."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain\n{self.log()}"
            time.sleep(0.005)

    def until_step(self, step):
        self.until(lambda: len(self.steps()) > step)

    def kill(self, signum=signal.SIGKILL, ranks=None):
        for rank, pid in enumerate(self.pids):
            if ranks is None or rank in ranks:
                os.kill(pid, signum)

    def wait(self, seconds=900):
        answer = self.zygote.ask({"wait": self.pids, "seconds": seconds})
        status, self.ended = answer["status"], answer["ended"]
        if None in status:
            for pid, code in zip(self.pids, status, strict=True):
                if code is None:
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(
                "still running:\n" + "\n".join(self.log(rank)[-3000:] for rank in range(len(self.pids)))
            )
        return status

    def done(self):
        """Waits; every rank ended well. Returns the run folder."""
        status = self.wait()
        assert not any(status), "\n".join(f"rank {r}: {s}\n{self.log(r)[-3000:]}" for r, s in enumerate(status))
        return self.run


class Zygote:
    def __init__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            "CUDA_VISIBLE_DEVICES": "",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "helpers.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert json.loads(self.process.stdout.readline()) == {"ready": True}

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def read_steps(run):
    """[(step, epoch, pairs, loss)] of steps.csv as strings; without a last line that is still being written."""
    path = run.path / "steps.csv"
    lines = path.read_text().split("\n")[1:-1] if path.is_file() else []
    return [tuple(line.split(",")) for line in lines]


def losses(run):
    return [float.fromhex(loss) for *_, loss in read_steps(run)]


def batches(run):
    return [pairs for _, _, pairs, _ in read_steps(run)]


def children_of(pid):
    """The processes that a process has started, which run."""
    running = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if "Z" not in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]:
                running.append(int(child))
    return running
