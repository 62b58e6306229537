"""An id that no product has is answered with the product that is probably meant, and what happened to the id."""

import pytest

from gcl.data.prepare.near_ids import NearIds
from gcl.data.prepare.prepare import prepare
from gcl.data.store.key_table import RowOf
from helpers.small_catalog import catalog, pairs, prepared, products, quarantined, write_table

IDS = ["00001", "42", "4006381333931", "AB-12", "größe-1", "Sku 9", "4111111111111"]


def near_ids(ids):
    row_of = RowOf()
    for row, identifier in enumerate(ids):
        row_of.add(identifier, row)
    return NearIds(row_of, lambda: ids)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("1", "'00001' is one: leading zeros were lost"),
        ("0042", "'42' is one: it has no leading zeros"),
        ("4,00638E+12", "'4006381333931' is one that begins so: a spreadsheet shortened the number"),
        ("4.00638e+12", "'4006381333931' is one that begins so: a spreadsheet shortened the number"),
        ("4.0064E12", "'4006381333931' is one that begins so"),
        ("4E+12", "2 ids begin so: a spreadsheet shortened the number"),
        ("ab-12", "'AB-12' is one: upper and lower case differ"),
        ("gro\u0308ße-1", "'größe-1' is one: the same letters in another Unicode form"),
        ("Sku9", "'Sku 9' is one: white space differs"),
        ("42,0", "'42' is one: the number was written with a fraction"),
        ("#42", "'42' is one: signs other than letters and digits differ"),
        ('="00001"', "'00001' is one: signs other than letters and digits differ"),
        ("AB\u201312", "'AB-12' is one: signs other than letters and digits differ"),
        ("\uff21B-12", "'AB-12' is one: the same letters in another Unicode form"),
        ("42,000", None),
        ("7", None),
        ("9E+11", None),
        ("", None),
    ],
)
def test_the_product_that_is_meant_is_named(given, said):
    found = near_ids(IDS)(given)
    assert found is None if said is None else found.startswith(said)


def test_it_stands_in_the_sentence_and_in_the_list(tmp_path):
    write_table(tmp_path / "products.csv", products(40))
    rows = pairs(60, 40)
    write_table(tmp_path / "pairs.csv", [row | {"product_id": row["product_id"].lstrip("0") or "0"} for row in rows])
    given = catalog(tmp_path, products="products.csv", pairs="pairs.csv", score="score")
    with pytest.raises(ValueError, match=r"unknown product id.*'000\d' is one: leading zeros were lost"):
        prepare(given, tmp_path / "out", progress=False)
    write_table(tmp_path / "pairs.csv", [*rows, {"query": "q", "product_id": "3", "score": "1"}])
    found = prepared(given, tmp_path / "out")
    assert quarantined(found.folder)[0]["detail"] == "'0003' is one: leading zeros were lost"
