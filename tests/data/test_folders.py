"""Folders that are one table, read where they lie: what each of them says is what its rows are, no more and no less."""

import shutil

import pyarrow.parquet as parquet
import pytest

from gcl.data.init.inputs import Kind, find_inputs
from gcl.data.tables.table import open_table
from helpers.small_catalog import catalog, contents, image, pairs, prepared, text, write_table
from helpers.table_folders import COLUMNS, ROWS, iceberg_table, lance_set, parquet_folder, partitions, saved, table

FORMS = (parquet_folder, partitions, saved, lance_set, iceberg_table)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_is_the_table_it_holds(form, tmp_path):
    folder = form(tmp_path / "shop" / "far")
    opened = open_table(str(folder), root=tmp_path, setting="data.products")
    assert set(COLUMNS) <= set(opened.columns)
    rows = []
    for block in opened.blocks(["product_id", "title", "brand"], ["photo"]):
        assert len(block.number) <= 64
        rows += zip(*(block.columns[name] for name in COLUMNS), strict=True)
    assert sorted(rows) == sorted(tuple(row[name] for name in COLUMNS) for row in ROWS)
    assert [cell for block in opened.blocks(["brand"]) for cell in block.columns["brand"]] == [row[3] for row in rows]
    assert [(item.path, item.kind) for item in find_inputs([str(folder)], tmp_path)] == [(str(folder), Kind.table)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_prepares_as_a_file_does_and_anew_when_it_changed(form, tmp_path):
    write_table(tmp_path / "pairs.csv", pairs(30, 24))
    parquet.write_table(table(), tmp_path / "products.parquet")
    folder = form(tmp_path / "far")
    fields = {"photo": image(), "title": text(), "brand": text()}
    file = catalog(tmp_path, products="products.parquet", pairs="pairs.csv", score="score", document=fields)
    expected, away = contents(prepared(file, tmp_path / "out")), tmp_path / "away"

    def prepare():
        given = catalog(tmp_path, products=str(folder), pairs="pairs.csv", score="score", document=fields)
        return prepared(given, away)

    first = prepare()
    found = contents(first)
    assert found["documents"] == expected["documents"] and sorted(found["pairs"]) == sorted(expected["pairs"])
    assert prepare().folder == first.folder
    if form is partitions:
        (folder / "brand=b0").rename(folder / "brand=c0")
    elif form is lance_set:
        pytest.importorskip("lance").dataset(str(folder)).update({"brand": "'c0'"}, where="brand = 'b0'")
    else:
        return
    assert {record["brand"] for record in contents(prepare())["documents"].values()} == {"c0", "b1", "b2"}


def two_splits(place):
    parquet.write_table(table(), parquet_folder(place) / "data" / "test-00000-of-00001.parquet")
    return place


def saved_splits(place):
    saved(place / "train")
    (place / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return place


def delta(place):
    (place / "_delta_log").mkdir(parents=True)
    parquet.write_table(table(), place / "part-0.parquet")
    return place


def naming_another(place):
    saved(place)
    (place / "state.json").write_text('{"_data_files": [{"filename": "/etc/data.arrow"}]}')
    return place


def cut_off(place):
    saved(place)
    (place / "state.json").write_text('{"_data_files": [{"filen')
    return place


def delta_partitions(place):
    (place / "_delta_log").mkdir(parents=True)
    (place / "dt=1").mkdir()
    parquet.write_table(table(), place / "dt=1" / "part-0.parquet")
    return place


def several(place):
    shutil.move(parquet_folder(place) / "data", place / "old")
    shutil.copytree(place / "old", place / "new")
    return place


@pytest.mark.parametrize(
    ("form", "below", "said"),
    [
        (two_splits, "", r"holds test, train: name one of them, .*/data/test-\*.parquet"),
        (saved_splits, "", r"holds train, test: name one of them, .*/train"),
        (naming_another, "", "state.json lists '/etc/data.arrow', which is no file of its own folder"),
        (cut_off, "", "state.json does not list the files of a data set"),
        (delta, "", "is a Delta table, and gcl does not read _delta_log.*Write its newest version as Parquet"),
        (delta, "part-0.parquet", "belong to the table .*, and some of them may be deleted or replaced"),
        (delta_partitions, "dt=1", "the files in .*/dt=1 belong to the table .*/far, and some of them may be deleted"),
        (iceberg_table, "data", "the files in .* belong to the table .*, and some of them may be deleted or replaced"),
        (several, "", "holds Parquet files in new, old: name one of them"),
        (iceberg_table, "data/*.parquet", "belong to the table .*, and some of them may be deleted or replaced: name"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_that_is_not_one_table_is_refused_by_name(form, below, said, tmp_path):
    folder = form(tmp_path / "far")
    with pytest.raises(ValueError, match=f"data.products: .*{said}"):
        open_table(str(folder / below), root=tmp_path, setting="data.products")
