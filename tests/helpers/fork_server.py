"""A process that has imported everything and forks real training processes on request: their start costs nothing.

Reads JSON lines: {"start": [[word, …] for each rank], "env": {…}, "log": folder} answers {"pids": […]}, where null in
the place of a rank's words is a process that ends before it has begun;
{"wait": [pid, …], "seconds": n} answers {"status": […], "ended": [seconds since 1970, …]}, None for a process that is
still running.
"""

import gc
import importlib
import json
import os
import socket
import sys
import time
import traceback
from contextlib import suppress

RESERVED = []
"""A socket per run at the port where its ranks meet: bound until the end, so that no other process gets that port."""


def main():
    import torch

    import gcl.data.prepare.prepare
    import gcl.retrieval.page.page
    import gcl.run.training
    from gcl.cli import main as gcl
    from gcl.config.compose import Overrides

    for module in ("pandas", "pyarrow.dataset", "pillow_heif"):  # what every run loads sooner or later
        with suppress(ImportError):
            importlib.import_module(module)
    torch.set_num_threads(1)
    Overrides(["data=demo", "model=tiny"]).config()  # settings are read from the code once; no model is built here,
    # as compiled towers fail in a child whose parent has used the threads of torch
    gc.collect()
    gc.freeze()  # so that looking for garbage copies none of these pages in every child
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer = {"pids": start(gcl, request)}
        else:
            status, ended = wait(request["wait"], request["seconds"])
            answer = {"status": status, "ended": ended}
        print(json.dumps(answer), flush=True)


def start(gcl, request):
    words, pids = request["start"], []
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # with it rank 0 may listen at this port, too
    reserved.bind(("127.0.0.1", 0))
    RESERVED.append(reserved)
    port = str(reserved.getsockname()[1])
    for rank, own in enumerate(words):
        pid = os.fork()
        if pid == 0:
            if own is None:
                os._exit(0)
            env = dict(request["env"])
            if len(words) > 1:
                env |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(words), "LOCAL_WORLD_SIZE": len(words),
                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GROUP_RANK": 0,
                        "TORCHELASTIC_RUN_ID": "test"}  # fmt: skip
            os.environ.update({key: str(value) for key, value in env.items()})
            run(gcl, own, os.path.join(request["log"], f"rank{rank}.log"))
        pids.append(pid)
    return pids


def run(gcl, words, log):
    """In the child: as if `gcl train …` had been typed. Never returns."""
    status = 0
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        gcl(["train", *words])
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def wait(pids, seconds):
    status, ended, end = {}, {}, time.monotonic() + seconds
    while len(status) < len(pids) and time.monotonic() < end:
        for pid in pids:
            if pid not in status:
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    status[pid], ended[pid] = os.waitstatus_to_exitcode(code), time.time()
        time.sleep(0.02)
    return [status.get(pid) for pid in pids], [ended.get(pid) for pid in pids]


if __name__ == "__main__":
    main()
