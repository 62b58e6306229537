"""A loader that gives nothing for a while is told of while it waits, and it gives what a DataLoader gives."""

import time

import pytest
from torch.utils.data import DataLoader, Dataset

from gcl.data.batches.loader import Watch, WatchedLoader


class Slow(Dataset):
    def __init__(self, slow):
        self.slow = slow

    def __getitem__(self, index):
        time.sleep(0.7 if index == self.slow else 0)
        return index * 10


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_batch_is_told_with_its_place(caplog, workers):
    options = {"batch_size": None, "sampler": [3, 5, 4], "num_workers": workers}
    with Watch(loader := WatchedLoader(Slow(5), **options), "shard {}.tar".format, what="Block", rank=2, seconds=0.4):
        assert list(loader) == list(DataLoader(Slow(None), **options))
    told = [record.getMessage() for record in caplog.records if "Block 5" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("Rank 2: the data loader has given no batch for 0 s")
    assert "Block 5 begins at shard 5.tar" in told[0]
    assert loader.waiting is None and loader.waited >= 0.7


def test_nothing_is_told_once_it_is_left(caplog):
    loader = WatchedLoader(Slow(0), batch_size=None, sampler=[0])
    with Watch(loader, str, what="Block", seconds=0.1):
        pass
    assert list(loader) == [0] and not caplog.records
