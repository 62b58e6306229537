"""Preparing holds keys and numbers of its rows in memory, never the rows."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from data_memory import slope

from gcl.data.catalog import SamePair
from gcl.data.prepare import memory
from gcl.data.prepare.copies import Shared, first_of_equals
from gcl.data.prepare.memory import in_parts
from gcl.data.prepare.repeated import settle_scores
from gcl.data.prepare.split import whole_task, write_pairs
from gcl.data.store import key_table
from gcl.data.store.key_table import KeyTable, Packed, RowOf, text_key
from gcl.data.store.prepared import Pairs


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says a process's peak")
def test_bytes_a_row():
    """Two sizes in fresh processes, all products, queries and pairs different: what ten million rows take follows."""
    each, peaks = slope((150_000, 450_000))
    print(f"{each:.0f} bytes a row, peaks {peaks}; 10 M rows: {(peaks[0] + each * (1e7 - 300_000)) / 2**30:.1f} GiB")
    assert 0 < each < 180


def test_a_key_table_is_a_dictionary():
    table, names, expected = KeyTable(), RowOf(), {}
    for number in range(30_000):
        name = f"sku-{number * 7919 % 20_000}"
        table.add(text_key(name), number)
        expected.setdefault(name, number)
        if name not in names:
            names.add(name, number)
    assert len(table) == len(names) == len(expected) == 20_000
    assert all(table.get(text_key(name)) == names[name] == row for name, row in expected.items())
    assert table.get(text_key("sku-20000")) is None and names.get("sku-20000") is None and "sku-20000" not in names
    with pytest.raises(KeyError, match="sku-20000"):
        names["sku-20000"]


def test_a_key_table_takes_keys_that_lie_close_together():
    """The worst that digests can do: all first slots are the table's last ones."""
    table = KeyTable()
    keys = [b"\xff" * 8 + number.to_bytes(8, "big") for number in range(1500)]
    for number, key in enumerate(keys):
        table.add(key, number)
    assert [table.get(key) for key in keys] == list(range(1500))


def test_a_key_table_is_compact():
    table = KeyTable()
    for number in range(50_000):
        table.add(text_key(str(number)), number)
    size = len(table._keys) + sum(part.itemsize * len(part) for part in (table._values, table._slots))
    assert size / len(table) < 45


def test_a_key_table_that_lies_in_a_file_is_the_same_dictionary(monkeypatch):
    monkeypatch.setattr(key_table, "_IN_MEMORY", 700)
    monkeypatch.setattr(key_table, "_PIECE", 1000)
    table, expected = KeyTable(), {}
    for number in range(9_000):
        key = text_key(str(number * 7919 % 6_000)) if number % 3 else bytes([number % 251]) * 15 + b"\0"
        table.add(key, number)
        expected.setdefault(key, number)
    assert len(table) == len(expected)
    assert all(table.get(key) == value for key, value in expected.items())
    assert [table.get(text_key(f"not there {number}")) for number in range(500)] == [None] * 500
    assert len(table._values) < 700


def test_packed_rows_are_a_list_in_memory_or_not(monkeypatch):
    monkeypatch.setattr(key_table, "_TAIL", 1 << 10)
    rows, expected = Packed(8), []
    for number in range(1_000):
        rows.append(number.to_bytes(8, "little"))
        expected.append(number.to_bytes(8, "little"))
        assert rows[number // 2] == expected[number // 2] and rows[number] == expected[number]
    assert list(rows) == expected and len(rows) == 1_000 and len(Packed(8).array("<u8")) == 0
    assert rows.array("<u8").tolist() == list(range(1_000))


@pytest.mark.parametrize("values", [np.zeros(500, np.int32), np.arange(500) ** 2 % 97, np.arange(500) // 400 * 3])
def test_parts_are_a_sorted_whole(values):
    parts = list(in_parts(values, at_once=64))
    order = np.concatenate([rows[np.argsort(values[rows], kind="stable")] for rows in parts])
    assert order.tolist() == np.argsort(values, kind="stable").tolist()
    assert all((np.diff(rows) > 0).all() for rows in parts)
    assert max(map(len, parts)) <= max(200, np.bincount(values).max())


def test_what_is_done_in_parts_is_what_is_done_at_once(monkeypatch):
    draw = np.random.default_rng(0)
    query, document = (np.minimum(draw.zipf(1.5, 3000), most).astype(np.int32) for most in (400, 60))
    pairs = Pairs(query, document, draw.integers(0, 4, 3000).astype(np.float32))
    shared = [Shared(draw.integers(0, 900, 800).astype(np.uint64), 3) for _ in range(2)]

    def everything():
        for rule in SamePair:
            settled = settle_scores(pairs, rule)
            yield settled.pairs.score.tolist(), settled.contradictions, settled.example
        task = whole_task("task", np.arange(0, 61, 2), pairs)
        yield task.judged.query.tolist(), task.judged.document.tolist(), task.judged.score.tolist()
        yield task.without_relevant, task.outside_corpus, first_of_equals(shared, 800).tolist()

    whole = list(everything())
    monkeypatch.setattr(memory, "AT_ONCE", 50)
    assert list(everything()) == whole


@pytest.mark.parametrize("count", [0, 1, memory.AT_ONCE + 5])
def test_pairs_that_are_written_in_blocks_are_the_file_of_one_table(tmp_path, count):
    rows = np.arange(count) * 7919 % max(count, 1)
    pairs = Pairs(rows, rows[::-1], np.ones(count, np.float32), (rows % 2).astype(np.uint8), ((), ("title",)))
    write_pairs(pairs, tmp_path / "blocks.parquet")
    parquet.write_table(pairs.to_table(), tmp_path / "whole.parquet", compression="zstd")
    assert (tmp_path / "blocks.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
