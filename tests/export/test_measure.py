"""The clock looks at what it says it looks at, and stops in time."""

import numpy as np
import pytest

from gcl.exports import measure
from gcl.exports.measure import latency_record, latency_table, machine, measure_latency


class Slow:
    """Takes 2 ms a call and 1 ms an item; images twice that. By a clock of its own: no other process takes its time."""

    def __init__(self, monkeypatch):
        self.seen, self.now = {"text": set(), "image": set()}, 0.0
        monkeypatch.setattr(measure.time, "perf_counter", lambda: self.now)

    def _take(self, tower, items, factor):
        self.seen[tower].update(items)
        self.now += factor * (0.002 + 0.001 * len(items))
        return np.ones((len(items), 4), dtype=np.float32)

    def texts(self, texts):
        return self._take("text", texts, 1)

    def images(self, images):
        assert all(data[:2] == b"\xff\xd8" for data in images)
        return self._take("image", images, 2)


def test_one_item_and_a_batch_of_each_tower(monkeypatch):
    model = Slow(monkeypatch)
    found = measure_latency("slow", model, batch=8, seconds=1.2)
    assert 1.2 <= model.now < 1.4
    assert [(t.tower, t.batch) for t in found] == [("text", 1), ("text", 8), ("image", 1), ("image", 8)]
    by = {(t.tower, t.batch): t for t in found}
    assert [t.p50 for t in found] == pytest.approx([3, 10, 6, 20])
    assert all(t.p95 == pytest.approx(t.p50) and t.calls >= 3 for t in found)
    assert by["text", 8].throughput == pytest.approx(8 / (by["text", 8].p50 / 1000))
    assert len(model.seen["text"]) == 8 and len(model.seen["image"]) == 8, "no two alike"


def test_a_batch_that_would_take_too_long_is_made_smaller_and_says_so(monkeypatch):
    found = measure_latency("slow", Slow(monkeypatch), batch=500, seconds=0.2, images=False)
    assert [t.tower for t in found] == ["text", "text"] and found[1].batch == 11  # of 100 ms for three calls of 3 ms


def test_the_slowest_model_has_a_row_for_a_batch(monkeypatch):
    found = measure_latency("slow", Slow(monkeypatch), batch=32, seconds=0.001)
    assert [(t.tower, t.batch) for t in found] == [("text", 1), ("text", 2), ("image", 1), ("image", 2)]


def test_the_table_and_the_record_name_the_machine(monkeypatch):
    found = measure_latency("slow", Slow(monkeypatch), batch=2, seconds=0.05, images=False)
    record = latency_record(found)
    assert record["machine"] == machine() and "thread" in machine() and "core" in machine()
    assert record["rows"][0]["format"] == "slow" and len(latency_table(found).rows) == len(found)
