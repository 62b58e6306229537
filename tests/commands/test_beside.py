"""Smaller vectors, slices and what must not be forgotten: from words on a command line to table, files and page."""

import contextlib
import csv
import io
import json
import re

import numpy as np
import pytest

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.model.dual_encoder import DualEncoder
from gcl.retrieval.analysis.compression import compression_records, of_records
from helpers.trained_shop import weights_of


@pytest.fixture(scope="module")
def general(shop, tmp_path_factory):
    """A BEIR-like folder and a table of pictures with labels."""
    folder = tmp_path_factory.mktemp("general")
    (folder / "qrels").mkdir()
    texts = [{"_id": f"c{n}", "title": "", "text": f"thing number {n}"} for n in range(30)]
    asked = [{"_id": f"q{n}", "text": f"number {n}"} for n in range(30)]
    for name, lines in (("corpus", texts), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judged = "".join(f"q{n}\tc{n}\t1\n" for n in range(30))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    colours = ("red", "green", "blue", "white")
    rows = [f"{shop}/images/{n}.jpg,{colours[n % 4]}" for n in range(40) if n % 13 != 12]
    (folder / "pictures.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def forgetful(monkeypatch):
    """A model whose text tower is overwritten by noise as soon as it has been trained: it forgets everything."""
    import torch

    from gcl.lit.module import GCLModule

    ends = GCLModule.on_train_batch_end

    def forgets(self, outputs, batch, batch_idx):
        ends(self, outputs, batch, batch_idx)
        generator = torch.Generator().manual_seed(batch_idx)
        if batch_idx >= 2:
            with torch.no_grad():
                for parameter in self.encoder.model.text.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))

    monkeypatch.setattr(GCLModule, "on_train_batch_end", forgets)


def words(general, limit):
    return [
        f"evaluate.retention.colours={{images: {general}/pictures.csv, limit: 1.0}}",
        f"evaluate.retention.numbers={{folder: {general}, limit: {limit}, metric: recall@10}}",
    ]


def test_a_run_that_forgets_is_caught(train, general, forgetful, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(*words(general, 0.02), "evaluate.gate=worse", "train.validate_every=3 steps", run_dir=tmp_path / "r")
    assert stopped.value.code == 3
    said = capsys.readouterr().out
    assert "!!!!!!!! The model has forgotten: numbers lost" in said and "the limit is 0.02" in said
    assert said.index("!!!!!!!!") < said.index("better/same/worse")  # above the table
    assert "colours lost" not in said
    assert re.search(r"\nVerdict: .*[fF]orgot numbers \(.*the limit is 0.02\): do not ship\.\nNext:\n", said)
    assert said.index("Verdict") < said.index("evaluate.forgetting=choose ") < said.index("The exit status is 3")
    page_says = json.loads((tmp_path / "r" / "results.json").read_text())["verdicts"]["tuned"]
    assert page_says["decision"] == "do not ship" and page_says["sentence"] in said
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    kept = metrics["retention"]["tuned"]
    assert kept["numbers"]["exceeded"] and not kept["colours"]["exceeded"]
    assert kept["numbers"]["loss"] == pytest.approx(kept["numbers"]["base"] - kept["numbers"]["tuned"])
    assert set(kept["colours"]["tasks"]["colours"]) == {"hit@1", "hit@5"}
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.index('class="alarm"') < page.index("<main") and "The model has forgotten: numbers" in page
    assert "What must not be forgotten, on a sample" in page  # the curve
    assert "**The model has forgotten: numbers" in (tmp_path / "r" / "results.md").read_text()
    with open(tmp_path / "r" / "metrics.csv") as file:
        curve = [row["retention/numbers/recall@10"] for row in csv.DictReader(file)]
    assert len([value for value in curve if value]) == 2
    with pytest.raises(SystemExit) as stopped:  # evaluate.py has the run's sets and its word on them
        main(["evaluate", f"run={tmp_path / 'r'}", f"out={tmp_path / 'out'}"])
    assert stopped.value.code == 3 and "evaluate.gate=worse" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()


def test_the_best_checkpoint_is_chosen_among_those_that_kept_what_they_must(train, general, forgetful, tmp_path):
    """The first validation (step 2) is before everything is forgotten."""
    run = train(
        *words(general, 0.3), "evaluate.forgetting=choose", "train.validate_every=2 steps", run_dir=tmp_path / "run"
    )
    with open(run.path / "metrics.csv") as file:
        within = [float(row["retention/within"]) for row in csv.DictReader(file) if row["retention/within"]]
    assert within == [1.0, 0.0, 0.0]
    from gcl.lit.checkpoint import checkpoint_step

    assert checkpoint_step(run.best) == 2
    assert not json.loads(run.metrics.read_text())["retention"]["tuned"]["numbers"]["exceeded"]


@pytest.fixture(scope="module")
def measured(finished, general, shop, tmp_path_factory):
    """One evaluation with everything beside the table: its folder, and what it printed. `stock` stands in the products
    table alone."""
    folder = tmp_path_factory.mktemp("measured")
    with open(shop / "products.csv") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "products.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "stock"])
        writer.writeheader()
        writer.writerows({**row, "stock": "plenty" if n % 4 < 2 else "few"} for n, row in enumerate(rows))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main(["evaluate", f"run={finished.path}", f"out={folder}", *words(general, 1.0), *weights_of(finished),
              f"data.products={folder}/products.csv", f"data.image_root={shop}",
              f"evaluate.retention.again={{catalog: {shop}/conf/data/shop.yaml}}",
              "evaluate.slices=[stock,brand,query_length,head_tail,missing]",
              "evaluate.compress=[int8,binary,64,'32 int8']"])  # fmt: skip
    return folder, said.getvalue()


def test_zero_shot_classification_is_open_clip_s(finished, general, measured):
    """Against the classifier as CLIP's authors build it: mean of the templates' unit vectors, normalised again."""
    import torch
    from PIL import Image

    from gcl.run.contestants import tuned_encoder

    found = json.loads((measured[0] / "metrics.json").read_text())["retention"]["tuned"]["colours"]["tasks"]["colours"]
    encoder = tuned_encoder(finished)
    names, templates = ["blue", "green", "red", "white"], ["a photo of a {}.", "{}", "a picture of a {}, for sale."]
    unit, pp = torch.nn.functional.normalize, encoder.preprocess
    with open(general / "pictures.csv") as file, torch.inference_mode():
        rows = list(csv.DictReader(file))
        tokens = [pp.text([template.replace("{}", name) for template in templates]) for name in names]
        means = torch.stack([unit(encoder.model.encode_text(one), dim=-1).mean(0) for one in tokens])
        classes = unit(means, dim=-1)
        pixels = torch.stack([pp.image(open(row["image"], "rb").read()) for row in rows])
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (pp.mean, pp.std))
        pictures = unit(encoder.model.encode_image((pixels.float() / 255 - mean) / std), dim=-1)
    right = torch.tensor([names.index(row["label"]) for row in rows])
    order = (pictures @ classes.T).argsort(dim=1, descending=True)
    assert Image.open(rows[0]["image"]).size and found["hit@1"]["n"] == len(rows)
    assert found["hit@1"]["after"] == pytest.approx((order[:, 0] == right).float().mean().item())
    assert found["hit@5"]["after"] == 1.0  # of four classes


def test_another_catalog_as_a_general_set(finished, measured):
    """The run's own catalog, given as another one, has the run's own figures."""
    metrics = json.loads((measured[0] / "metrics.json").read_text())
    tasks = metrics["retention"]["tuned"]["again"]["tasks"]
    assert load_config(finished.config).evaluate.headline[0] in next(iter(tasks.values()))
    for task, values in tasks.items():
        assert values["ndcg@10"]["after"] == pytest.approx(metrics["tuned"][task]["ndcg@10"])


def test_smaller_vectors_stand_beside_the_full_ones(measured):
    folder, said = measured
    assert "64 wide, float32" in said and "32 wide, int8" in said
    metrics = json.loads((folder / "metrics.json").read_text())["tuned"]
    for task in metrics.values():
        small = task["compressed"]
        assert {name: form["bytes"] for name, form in small.items()} == {
            "all x int8": 128, "all x int8, rotated": 128, "all x binary": 16, "all x binary, rotated": 16,
            "64 x float32": 256, "64 x float32, rotated": 256, "32 x int8": 32, "32 x int8, rotated": 32,
        }  # fmt: skip
        assert all(form["ndcg@10"]["before"] == task["ndcg@10"] for form in small.values())
        assert small["all x int8"]["ndcg@10"]["after"] == pytest.approx(task["ndcg@10"], abs=0.05)
    with open(folder / "compressed.csv") as file:
        assert {row["vectors"] for row in csv.DictReader(file)} == set(small)
    for name in ("results.md", "report.html"):
        assert "32 wide, int8, rotated" in (folder / name).read_text()
    records = json.loads((folder / "results.json").read_text())["compressed"]
    assert compression_records(of_records(records)) == records, "the card shows the run's own table"


def test_slices_by_columns_that_are_no_fields(measured):
    """`stock` stands in the products table alone; brand is a field, the other names are built in."""
    folder, said = measured
    assert "too few" in said
    with open(folder / "slices.csv") as file:
        found = list(csv.DictReader(file))
    assert {row["column"] for row in found} == {
        "stock", "brand", "query_length", "head_tail", "missing image", "missing title", "missing brand",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())["tuned"]
    for task in {row["task"] for row in found}:
        for column in {row["column"] for row in found}:
            parts = [row for row in found if (row["task"], row["column"]) == (task, column)]
            assert sum(int(row["n"]) for row in parts) == metrics[task]["queries"]
            mean = sum(float(row["after"]) * int(row["n"]) for row in parts) / metrics[task]["queries"]
            assert mean == pytest.approx(metrics[task]["ndcg@10"])
    assert {row["value"] for row in found if row["column"] == "stock"} <= {"plenty", "few", "several"}
    assert "plenty" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("evaluate.compress=[int4]", "'int4' is not a vector format"),
        ("evaluate.compress=[4096]", "width of 4096 is requested"),
        ("evaluate.slices=[brandd]", "no column 'brandd'. Did you mean 'brand'"),
        ("evaluate.retention.x={limit: 0.1}", "expected exactly one of catalog, folder and images"),
        ("evaluate.retention.x={folder: nowhere}", "There is no nowhere/corpus.jsonl"),
        ("evaluate.retention.x={catalog: shoop}", "shoop"),
        ("evaluate.retention.x={folder: y, limit: -1}", "at least 0"),
        ("evaluate.retention.x={folder: y, metric: nddcg@10}", "Did you mean 'ndcg@10'"),
        ("evaluate.forgetting=shout", "shout"),
        ("evaluate.gate=shut", "off, worse, better"),
    ],
)
def test_mistakes_are_named_before_anything_is_measured(finished, monkeypatch, tmp_path, capsys, word, says):
    if "4096" not in word:  # the width is the model's
        monkeypatch.setattr(DualEncoder, "embed_fields", None)
    with pytest.raises(SystemExit):
        main(["evaluate", f"run={finished.path}", word, f"out={tmp_path}"])
    assert says in capsys.readouterr().err


def test_compressed_vectors_are_what_their_names_say():
    from gcl.retrieval.embedding.quantize import VectorFormat, compress

    generator = np.random.default_rng(0)
    query, corpus = (generator.standard_normal((n, 16)).astype(np.float32) for n in (5, 9000))
    asked, small = compress(query, corpus, VectorFormat(8, "int8"))
    assert np.array_equal(small, np.rint(small)) and np.abs(small).max() == 127 and small.shape == (9000, 8)
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-6)
    asked, small = compress(query, corpus, VectorFormat(None, "binary both"))
    assert set(np.unique(asked)) == set(np.unique(small)) == {-1.0, 1.0}
