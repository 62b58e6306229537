"""A loader that gives nothing for a while is told of while it waits, and it gives what a DataLoader gives."""

import multiprocessing
import time
from types import SimpleNamespace

import pytest
from torch.utils.data import Dataset

from gcl.data.batches import loader as loading
from gcl.data.batches.loader import Watch, WatchedLoader


class Slow(Dataset):
    """One of its items comes when that has been told."""

    def __init__(self, slow=None, told=None):
        self.slow, self.told = slow, told

    def __getitem__(self, index):
        assert index != self.slow or self.told.wait(900)
        return index * 10


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_batch_is_told_with_its_place(monkeypatch, workers):
    options = {"batch_size": None, "sampler": [3, 5, 4], "num_workers": workers}
    told, heard, now = [], multiprocessing.Event(), [0.0]
    loader = WatchedLoader(Slow(5, heard), **options)

    def clock():
        """Stands still but for the ten seconds in which block 5 is waited for."""
        now[0] = 10.0 if loader.waiting and loader.waiting[0] == 5 else now[0]
        return now[0]

    def hear(record):
        told.append(record.getMessage())
        heard.set()
        return False

    monkeypatch.setattr(loading, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(loading.logger, "filters", [hear])
    with Watch(loader, "shard {}.tar".format, what="Block", rank=2, seconds=8.0):
        assert list(loader) == [30, 50, 40]
    assert len(told) == 1 and told[0].startswith("Rank 2: the data loader has given no batch for 8 s")
    assert "Block 5 begins at shard 5.tar" in told[0]
    assert loader.waiting is None and loader.waited == 10.0


class Later(Dataset):
    def __getitem__(self, index):
        time.sleep(0.7)
        return index * 10


def test_nothing_is_told_once_it_is_left(caplog):
    loader = WatchedLoader(Later(), batch_size=None, sampler=[0])
    with Watch(loader, str, what="Block", seconds=0.1):
        pass
    assert list(loader) == [0] and not caplog.records
