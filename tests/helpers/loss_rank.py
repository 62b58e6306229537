"""The exactness matrix: its cases, their float64 reference, and what one rank of a real process group computes for
them.

    python -m helpers.loss_rank RANK RANKS STORE CASES RESULT     # one rank; rank 0 writes RESULT

The batch is made as in training: the distinct queries and documents are listed, padded to a multiple of the ranks,
encoded in contiguous shares, gathered, and the N pairs read from them. Gradients are averaged by
DistributedDataParallel.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gcl.data.batches.lookups import KnownScores, TeacherVectors
from gcl.distributed.ranks import own_rows, world
from gcl.lit.grad_cache import encode_chunked
from gcl.loss.gather import gather_rows
from gcl.loss.gcl import GCLLoss, Part, Term
from gcl.loss.terms import Teaching
from helpers.loss_cases import (
    BIAS,
    DTYPES,
    MARGIN,
    PAIRS,
    SCALE,
    TEACHING,
    TERMS,
    WEIGHT,
    Batch,
    Case,
    Towers,
    cast,
    make_batch,
    results_of,
    target_of,
    to_parts,
)

# open_clip's losses without the rest of open_clip, which takes several seconds a process to import.
_SPEC = importlib.util.spec_from_file_location(
    "peer", Path(importlib.util.find_spec("open_clip").origin).parent / "loss.py"
)
peers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(peers)


class Step(nn.Module):
    """Towers and loss, as DistributedDataParallel wraps them."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.towers = Towers()
        self.loss = GCLLoss(
            form=case.form,
            score_to_weight=WEIGHT[case.weights],
            same_query=case.rule if case.rule == "negative" else "ignore",
            teaching=Teaching(*TEACHING),
            target=target_of(case),
            terms=[Term(*term) for term in TERMS[case.terms]],
            scale=SCALE[case.form],
            bias=BIAS if case.form == "sigmoid" else None,
            false_negative=MARGIN.get(case.batch),
            tile=None if case.path == "whole" else 4,
        )

    def encode(self, tower, *inputs: Tensor) -> Tensor:
        """This rank's share of the rows, and everyone's back."""
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        inputs = [torch.cat([x, x[: -len(x) % ranks]]) for x in inputs]  # padded by repetition; never read
        own = own_rows(len(inputs[0]))
        inputs = [x[own.start : own.stop] for x in inputs]
        if self.case.path != "chunked":
            return gather_rows(tower(*inputs))
        chunks = list(zip(*(x.split(2) for x in inputs), strict=True))
        return gather_rows(encode_chunked(lambda chunk: tower(*chunk), chunks, list(self.towers.parameters())))

    def forward(self, batch: Batch):
        towers = self.towers
        query, document = (
            self.encode(towers.query, batch.queries),
            self.encode(towers.document, batch.documents, batch.has_title),
        )
        sides = [{name: Part(*part) for name, part in side.items()} for side in to_parts(query, document, batch)]
        known = batch.known
        pairs = torch.tensor(list(known)).T
        return self.loss(
            *sides,
            score=batch.score,
            query_id=batch.query_row,
            document_id=batch.document_row,
            judged=KnownScores(*pairs, torch.tensor(list(known.values()))),
            teacher=said(batch.teacher(self.case.rule), batch.score.dtype),
        )


def said(teacher, dtype: torch.dtype) -> TeacherVectors | KnownScores | None:
    if isinstance(teacher, dict):
        return KnownScores(*torch.tensor(list(teacher)).T, torch.tensor(list(teacher.values()), dtype=dtype))
    return teacher and TeacherVectors(*(x.to(dtype) for x in teacher))


def wrap(step: nn.Module) -> nn.Module:
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return step
    return nn.parallel.DistributedDataParallel(step)


def compute(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    step = Step(case).to(dtype)
    wrapped = wrap(step)
    output = wrapped(cast(make_batch(PAIRS[case.batch]), dtype))
    output.loss.backward()
    return results_of(step, output.loss)


def ten_steps(case: Case) -> dict[str, Tensor]:
    """Scale and bias of every rank [W, 2] after ten steps of AdamW, float32."""
    step = Step(case)
    wrapped, optimizer = wrap(step), torch.optim.AdamW(step.parameters(), lr=0.05)
    for _ in range(10):
        optimizer.zero_grad()
        wrapped(make_batch(PAIRS[case.batch])).loss.backward()
        optimizer.step()
    both = torch.stack([step.loss.log_scale.detach(), step.loss.bias.detach()])[None]
    return {"scale and bias": gather_rows(both), "start": Step(case).loss.log_scale.detach()}


def peer(form: str, options: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(ours, open_clip's) value and averaged gradients on the same rows: equal shares, no repeats, weight 1."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    batch = cast(make_batch(12, repeats=False), torch.float64)
    case = Case(form, "tiled", "fused", "ignore", "constant", "equal")
    ours = Step(case).double()
    wrapped = wrap(ours)
    value = wrapped(batch).loss
    value.backward()

    theirs = Step(case).double()
    loss = (peers.ClipLoss if form == "softmax" else peers.SigLipLoss)(rank=rank, world_size=ranks, **options)

    class Peer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = theirs

        def forward(self, batch: Batch) -> Tensor:
            own = own_rows(len(batch.score))
            q, d = batch.query_row[own.start : own.stop], batch.document_row[own.start : own.stop]
            query = theirs.towers.query(batch.queries[q])[:, 1].contiguous()
            document = theirs.towers.document(batch.documents[d], batch.has_title[d])[:, 2].contiguous()
            bias = [theirs.loss.bias] if form == "sigmoid" else []
            return loss(query, document, theirs.loss.scale, *bias)

    wrapped = wrap(Peer())
    peer_value = wrapped(batch)
    peer_value.backward()
    total = peer_value.detach().clone()
    if ranks > 1:
        dist.all_reduce(total)
    return results_of(ours, value), results_of(theirs, total / ranks)


def refusal() -> str:
    """What gather_rows says to ranks that give different numbers of rows."""
    assert gather_rows(torch.ones(2, dtype=torch.bool)).tolist() == [True] * 2 * world()[1]  # masks travel as well
    try:
        gather_rows(torch.ones(1 + world()[0], 2))
    except ValueError as error:
        return str(error)
    return ""


def run(cases: list[Case]) -> dict:
    found: dict = {"matrix": {}, "steps": {}, "peers": {}, "refusal": refusal()}
    for case in cases:
        for dtype in DTYPES[: 1 if case.batch == "tiny" else 2]:  # two pairs' gradients all but cancel in float32
            found["matrix"][tuple(case), str(dtype)] = compute(case, dtype)
        if case.path == "tiled" and case.rule == "judged" and case.weights == "graded":
            found["steps"][tuple(case)] = ten_steps(case)
    for options in ({"local_loss": False}, {"local_loss": True}):
        found["peers"]["ClipLoss", str(options)] = peer("softmax", {"gather_with_grad": True, **options})
    for options in ({}, {"dist_impl": "gather"}):
        found["peers"]["SigLipLoss", str(options)] = peer("sigmoid", options)
    return found


def main(rank: str, ranks: str, store: str, cases: str, result: str) -> None:
    torch.set_num_threads(1)
    if int(ranks) > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(ranks))
    found = run([Case(*case) for case in torch.load(cases)])
    if rank == "0":
        torch.save(found, result)
    if int(ranks) > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
