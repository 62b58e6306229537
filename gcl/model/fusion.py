"""Several vectors, one vector: the weighted mean of a record's field embeddings, the mean of a set's images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_NORM = 1e-6  # below it the direction is noise: the vector shrinks to zero instead of the gradient exploding


def fuse(embedding: Tensor, weight: Tensor, present: Tensor) -> Tensor:
    """Fuses the field embeddings of each record: unit vectors in, weighted mean of the present ones, unit vector out.

    GCL's rule (Zhu, Jung, Clark 2024, https://arxiv.org/abs/2404.08535): a missing field counts nothing and the
    remaining weights are renormalised, so a record with one field present is exactly that field's embedding.

    Args:
        embedding: [B, F, D] unit vectors; an absent field's row is never looked at.
        weight: [F], at least 0; the fields' shares.
        present: [B, F] bool.

    Returns:
        [B, D] unit vectors. Where the mean is (nearly) zero, because opposite vectors cancel, it has no direction and
        the result is shorter than 1; its gradient stays finite.

    Raises:
        ValueError: a record has no present field of positive weight.

    >>> embedding = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, 0.0]]])
    >>> fuse(embedding, torch.tensor([0.9, 0.1]), torch.tensor([[True, True], [True, False]]))
    tensor([[0.9939, 0.1104],
            [0.6000, 0.8000]])
    """
    if embedding.shape[:2] != present.shape or weight.shape != present.shape[1:]:
        raise ValueError(
            f"fuse takes embedding[B, F, D], weight[F], present[B, F]; "
            f"given {list(embedding.shape)}, {list(weight.shape)}, {list(present.shape)}."
        )
    share = weight.to(embedding.dtype) * present  # [B, F]
    total = share.sum(dim=1, keepdim=True)  # [B, 1]
    if not bool((total > 0).all()):
        rows = (total[:, 0] <= 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"{len(rows)} of {len(total)} records have no field of positive weight, the first in row {rows[0]} of the "
            "batch: a record needs at least one to have an embedding."
        )
    kept = embedding.masked_fill(~present[:, :, None], 0)  # [B, F, D]; 0 * nan would be nan
    mean = ((share / total)[:, :, None] * kept).sum(dim=1)  # not a matrix product: autocast would round it
    return F.normalize(mean, dim=-1, eps=_SMALLEST_NORM)


def fuse_images(embedding: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """One vector for each set: the mean of its images' unit vectors, at length 1; of one image, that image's own.

    The images of a set are added up in their order, so that no other set and no device changes a bit of the sum.

    Args:
        embedding: [n, D] unit vectors of images.
        owner: int64 [n], the set that each belongs to; those of one set lie together.

    Returns:
        Each set's owner, int64 [m] in the order given, and [m, D]. As in `fuse`, opposite vectors give a shorter one.

    >>> fuse_images(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), torch.tensor([4, 4, 2]))
    (tensor([4, 2]), tensor([[0.7071, 0.7071],
            [0.6000, 0.8000]]))
    """
    sets, count = torch.unique_consecutive(owner, return_counts=True)
    if len(sets) == len(owner):
        return owner, embedding
    first = count.cumsum(0) - count
    total = embedding.index_select(0, first)  # [m, D]
    for place in range(1, int(count.max())):
        those = (count > place).nonzero()[:, 0]
        total = total.index_add(0, those, embedding.index_select(0, first[those] + place))
    mean = F.normalize(total / count[:, None], dim=-1, eps=_SMALLEST_NORM)
    return sets, torch.where(count[:, None] > 1, mean, total)
