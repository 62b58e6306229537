"""DistributedDataParallel on CPUs whose sums do not depend on how it packs the gradients.

It packs them anew after its first step, and the ring that adds a bucket up begins at another rank in each part of it:
from three ranks on, a run that was resumed would differ from one that was not in the last digits.
"""

# No postponed annotations here: DistributedDataParallel reads those of its hook.

import torch
import torch.distributed as distributed
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gcl.distributed.ranks import world


class OrderedDDP(DDPStrategy):
    """Lightning's DDP strategy with gradients added up in the order of the ranks, whatever bucket they lie in."""

    def configure_ddp(self) -> None:
        super().configure_ddp()
        assert isinstance(self.model, DistributedDataParallel)
        self.model.register_comm_hook(None, mean_in_rank_order)


def mean_in_rank_order(_: object, bucket: distributed.GradBucket) -> torch.futures.Future[Tensor]:
    """A communication hook: the mean over ranks of a bucket's gradients, each number's sum always made the same way."""
    own = bucket.buffer()
    parts = [torch.empty_like(own) for _ in range(world()[1])]
    distributed.all_gather(parts, own)
    total = parts[0]
    for part in parts[1:]:
        total += part
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(total.div_(len(parts)))
    return done
