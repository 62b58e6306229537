"""One rank of a loss over all ranks, which counts what its sockets receive and what it holds at the peak.

Started by torchrun: `python -m helpers.loss_bytes_rank PAIRS WIDTH TILE`. Each rank prints "received held" in bytes.
"""

import os
import socket
import stat
import struct
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from gcl.loss.gather import gather_rows
from gcl.loss.gcl import GCLLoss
from gcl.loss.terms import Part

_RECEIVED = 128  # where struct tcp_info of Linux has tcpi_bytes_received


def received():
    """Bytes that this process's TCP connections have received so far."""
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{descriptor}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6):
                    about = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", about, _RECEIVED)[0]
        except OSError:
            continue
    return total


def memory(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def main(pairs, width, tile):
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, world = dist.get_rank(), dist.get_world_size()
    loss = GCLLoss(form="softmax", tile=tile)
    row = torch.arange(pairs)

    def step(count):
        draw = torch.Generator().manual_seed(rank)
        local = [torch.randn(count // world, width, generator=draw, requires_grad=True) for _ in range(2)]
        before, peak = received(), memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        rows = row[:count]
        query, document = ({"fused": Part(gather_rows(x)[rows])} for x in local)
        output = loss(query, document, query_id=rows, document_id=rows).loss
        del query, document
        output.backward()
        return received() - before, memory("VmHWM") - peak

    step(world * 16)  # what is loaded and allocated once
    dist.barrier()
    os.write(1, b"%d %d\n" % step(pairs))  # at once: the ranks share a pipe
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
