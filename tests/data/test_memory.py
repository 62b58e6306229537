"""Preparing holds keys and numbers of its rows in memory, never the rows."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "bench"))

from data_memory import slope

from gcl.data.store.key_table import KeyTable, RowOf, text_key


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says a process's peak")
def test_bytes_a_row():
    """Two sizes in fresh processes, all products, queries and pairs different: what ten million rows take follows."""
    each, peaks = slope((150_000, 450_000))
    print(f"{each:.0f} bytes a row, peaks {peaks}; 10 M rows: {(peaks[0] + each * (1e7 - 300_000)) / 2**30:.1f} GiB")
    assert 0 < each < 220


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
