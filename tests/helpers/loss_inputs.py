"""Small batches and comparisons that the tests of one process share."""

import torch

from gcl.loss.gcl import LossOutput, Part

TILES = (None, "auto", 5, 1)
RULES = ("ignore", "negative")


def unit(n, d=8, seed=0, dtype=torch.float64):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1).to(dtype).requires_grad_()


def call(loss, q, d, score=None, query_id=None, document_id=None) -> LossOutput:
    ids = torch.arange(len(q))
    return loss(
        {"fused": Part(q)},
        {"fused": Part(d)},
        score=torch.ones(len(q)) if score is None else score,
        query_id=ids if query_id is None else query_id,
        document_id=ids if document_id is None else document_id,
    )


def repeats(n, seed=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, n // 2, (n,), generator=g), torch.randint(0, n // 2, (n,), generator=g)


def assert_close(actual, expected, tolerance):
    """Largest difference relative to the largest entry of the expected tensor."""
    for a, b in zip(actual, expected, strict=True):
        a, b = a.detach(), b.detach()
        worst = float((a - b).abs().max() / b.abs().max().clamp_min(1e-300))
        assert worst <= tolerance, worst
