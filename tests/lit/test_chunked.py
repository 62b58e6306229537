"""A batch in micro-batches has the whole batch's embeddings and gradients: dropout, bf16 and accumulation included."""

import pytest
import torch
from torch import nn

from gcl.lit.grad_cache import encode_chunked


class Net(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x):
        return nn.functional.normalize(self.frozen(self.layers(x)).float(), dim=-1)


def gradients(net, embed):
    net.zero_grad()
    embedding = embed()
    logits = 5 * embedding @ embedding.T
    nn.functional.cross_entropy(logits, torch.arange(len(logits))).backward()
    return embedding.detach(), [p.grad.clone() for p in net.parameters() if p.requires_grad]


@pytest.mark.parametrize("size", [1, 3, 4, 11])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradient_is_the_whole_batch_s(size, autocast):
    torch.manual_seed(0)
    net, x = Net(), torch.randn(11, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        whole, expected = gradients(net, lambda: net(x))
        chunked, found = gradients(net, lambda: encode_chunked(net, x.split(size), list(net.parameters())))
    tolerance = 3e-2 if autocast else 1e-6  # bf16 products of other shapes round differently
    assert torch.allclose(whole, chunked, atol=tolerance)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=tolerance * a.abs().max())


def test_dropout_draws_the_same_in_both_passes():
    torch.manual_seed(0)
    net, x = Net(dropout=0.5).double(), torch.randn(9, 6, dtype=torch.float64)
    parts = x.split(3)
    torch.manual_seed(1)
    _, found = gradients(net, lambda: encode_chunked(net, parts, list(net.parameters())))
    torch.manual_seed(1)
    _, expected = gradients(net, lambda: torch.cat([net(part) for part in parts]))
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


def test_random_state_after_it_is_as_if_encoded_plainly():
    net, x = Net(dropout=0.5), torch.randn(6, 6)
    torch.manual_seed(3)
    encode_chunked(net, x.split(2), list(net.parameters())).sum().backward()
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.cat([net(part) for part in x.split(2)])
    assert torch.equal(after, torch.rand(1))


def test_gradients_accumulate_over_batches():
    torch.manual_seed(0)
    net, a, b = Net(), torch.randn(4, 6), torch.randn(4, 6)
    for x in (a, b):
        encode_chunked(net, x.split(2), list(net.parameters())).square().sum(0)[0].backward()
    found = [p.grad.clone() for p in net.parameters() if p.requires_grad]
    net.zero_grad()
    for x in (a, b):
        net(x).square().sum(0)[0].backward()
    for p, g in zip((p for p in net.parameters() if p.requires_grad), found, strict=True):
        assert torch.allclose(p.grad, g, atol=1e-6)


def test_weights_that_share_their_gradient():
    """Two weights added to each other: autograd hands out one tensor for both."""
    torch.manual_seed(0)
    a, b, x = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4)), torch.randn(9, 3)
    expected = torch.autograd.grad((x @ (a + b)).square().sum(), [a, b])
    chunked = encode_chunked(lambda part: part @ (a + b), x.split(3), [a, b])
    for found, whole in zip(torch.autograd.grad(chunked.square().sum(), [a, b]), expected, strict=True):
        assert torch.allclose(found, whole, rtol=1e-5)
