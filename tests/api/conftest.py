"""The shop of the other tests as DataFrames, and its run as a model."""

import csv

import pytest

import gcl


@pytest.fixture(scope="module")
def products(shop):
    """The rows of products.csv, images as absolute paths; an empty cell is None."""
    with open(shop / "products.csv", encoding="utf-8") as file:
        rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    return [{**row, "image": row["image"] and str(shop / row["image"])} for row in rows]


@pytest.fixture(scope="module")
def pairs(shop):
    with open(shop / "pairs.csv", encoding="utf-8") as file:
        return [{**row, "score": float(row["score"])} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def model(finished):
    return gcl.load(finished.path)
