import pytest
import torch
import torch.nn.functional as F

from gcl.model.fusion import fuse


def unit(*shape, **kwargs):
    return F.normalize(torch.randn(*shape, **kwargs), dim=-1)


def by_hand(embedding, weight, present):
    rows = []
    for b in range(len(embedding)):
        total, mean = 0.0, [0.0] * embedding.shape[2]
        for f in range(embedding.shape[1]):
            if present[b, f]:
                total += weight[f].item()
        for f in range(embedding.shape[1]):
            if present[b, f]:
                mean = [m + weight[f].item() / total * x.item() for m, x in zip(mean, embedding[b, f], strict=True)]
        norm = sum(m * m for m in mean) ** 0.5
        rows.append([m / norm for m in mean])
    return torch.tensor(rows, dtype=embedding.dtype)


@pytest.mark.parametrize("fields", [1, 2, 5])
def test_equals_explicit_loops(fields):
    torch.manual_seed(fields)
    embedding = unit(16, fields, 7, dtype=torch.float64)
    weight = torch.rand(fields, dtype=torch.float64) + 0.01
    present = torch.rand(16, fields) < 0.6
    present[:, 0] |= ~present.any(dim=1)
    out = fuse(embedding, weight, present)
    torch.testing.assert_close(out, by_hand(embedding, weight, present), atol=1e-12, rtol=0)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones(16, dtype=torch.float64))


def test_scale_of_the_weights_does_not_matter():
    embedding, present = unit(4, 3, 8), torch.ones(4, 3, dtype=torch.bool)
    weight = torch.tensor([0.9, 0.1, 0.4])
    torch.testing.assert_close(fuse(embedding, weight, present), fuse(embedding, 40 * weight, present))


def test_one_field_present_is_that_field():
    embedding, present = unit(3, 2, 8), torch.tensor([[True, False], [False, True], [True, False]])
    out = fuse(embedding, torch.tensor([0.9, 0.1]), present)
    torch.testing.assert_close(out, embedding[present])


def test_values_of_an_absent_field_are_never_looked_at():
    embedding = unit(2, 2, 4)
    present = torch.tensor([[True, False], [True, True]])
    expected = fuse(embedding, torch.ones(2), present)
    embedding[0, 1] = float("nan")
    torch.testing.assert_close(fuse(embedding, torch.ones(2), present), expected)


def test_gradient_is_right_and_absent_fields_get_none():
    torch.manual_seed(0)
    embedding = unit(3, 3, 5, dtype=torch.float64).requires_grad_()
    present = torch.tensor([[True, True, False], [True, False, True], [False, True, True]])
    weight = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: fuse(x, weight, present), embedding)
    fuse(embedding, weight, present).sum().backward()
    assert embedding.grad[~present].abs().max() == 0


@pytest.mark.parametrize("gap", [0.0, 1e-20, 1e-8])
def test_opposite_vectors_leave_a_finite_gradient(gap):
    one = torch.tensor([1.0, 0.0, 0.0])
    embedding = torch.stack([one, -one + torch.tensor([0.0, gap, 0.0])])[None].requires_grad_()
    out = fuse(embedding, torch.ones(2), torch.ones(1, 2, dtype=torch.bool))
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(embedding.grad).all()
    assert embedding.grad.abs().max() <= 1e6


def test_a_record_without_a_field_is_refused_by_row():
    present = torch.tensor([[True, False], [False, False], [False, True]])
    with pytest.raises(ValueError, match="1 of 3 records .* in row 1"):
        fuse(unit(3, 2, 4), torch.ones(2), present)
    with pytest.raises(ValueError, match="row 2"):  # its only field weighs nothing
        fuse(unit(3, 2, 4), torch.tensor([1.0, 0.0]), torch.tensor([[True, True], [True, False], [False, True]]))


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="embedding\\[B, F, D\\]"):
        fuse(unit(3, 2, 4), torch.ones(3), torch.ones(3, 2, dtype=torch.bool))


def test_no_records_give_no_records():
    assert fuse(torch.zeros(0, 2, 4), torch.ones(2), torch.zeros(0, 2, dtype=torch.bool)).shape == (0, 4)
