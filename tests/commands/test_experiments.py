"""Every recipe in conf/experiment takes one step: on its own kind of catalog, small, with the tiny model."""

import csv
import gzip
import shutil

import pytest

from gcl.config.folder import conf_folder

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))


@pytest.fixture(scope="session")
def fashion(shop, tmp_path_factory):
    """The shop in the layout of conf/data/fashion.yaml: graded pairs, and judged queries of two kinds."""
    folder = tmp_path_factory.mktemp("fashion")
    shutil.copytree(shop / "images", folder / "images")
    shutil.copy(shop / "products.csv", folder / "products.csv")
    with open(shop / "pairs.csv") as file:
        pairs = list(csv.DictReader(file))
    with gzip.open(folder / "train_pairs.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, ["query", "product_id", "score"])
        writer.writeheader()
        writer.writerows({**pair, "score": 100 if pair["score"] == "100" else 50} for pair in pairs)
    words = sorted({pair["query"] for pair in pairs})
    with open(folder / "queries.csv", "w", newline="") as queries, gzip.open(folder / "qrels.csv.gz", "wt") as qrels:
        print("query_id,query,kind", file=queries)
        print("query_id,product_id,score", file=qrels)
        for number, word in enumerate(words[:12]):
            print(f"q{number},{word},{('attr-graded', 'kagl-text')[number % 2]}", file=queries)
            for pair in pairs:
                if pair["query"] == word:
                    print(f"q{number},{pair['product_id']},3", file=qrels)
    return folder


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_takes_one_step(name, train, shop, fashion):
    words = [
        f"experiment={name}",
        "model=tiny",
        "train.max_steps=1",
        "train.batch_size=8",
        "train.validate_every=1 steps",
    ]
    words += [f"data.root={fashion}", "data=fashion", "model.head=linear"] if name.startswith("fashion") else []
    assert train(*words).metrics.is_file()
