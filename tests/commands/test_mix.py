"""Two catalogs trained on at once through the commands: prepared, mixed, measured one by one, resumed, looked at."""

import csv
import json

import numpy as np
import pytest

from gcl.cli import main
from gcl.config.compose import Overrides, load_config
from gcl.data.prepare.mixed import open_catalog
from gcl.errors import ConfigError
from gcl.run.folder import RunFolder
from helpers.trained_shop import dies_after, write_shop

SITUATIONS = {"in_domain", "novel_query", "novel_document", "zero_shot"}


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """left (48 products) and right (80, no brand), whose product ids are the same words; both.yaml mixes them."""
    root = tmp_path_factory.mktemp("shops")
    conf = root / "conf" / "data"
    conf.mkdir(parents=True)
    for name, count in (("left", 48), ("right", 80)):
        yaml = (write_shop(root / name, count) / "conf" / "data" / "shop.yaml").read_text()
        yaml = yaml.replace("name: shop", f"name: {name}")
        if name == "right":
            yaml = yaml.replace("  brand: {modality: text, weight: 0.1}\n", "")
        (conf / f"{name}.yaml").write_text(yaml)
    (conf / "both.yaml").write_text("name: both\nmix: {left: 0.75, right: 0.25}\n")
    return root


@pytest.fixture(scope="module")
def words(shops):
    return ["--config-dir", str(shops / "conf"), "data=both", "model=tiny", "trainer=cpu", "train.batch_size=16",
            f"cache_dir={shops / 'cache'}", "train.workers=0", "optim.learning_rate=3e-4", "train.max_steps=6",
            "train.checkpoint_every=2", "train.validate_every=3 steps", "trainer.log_every_n_steps=1",
            "evaluate.metrics=[ndcg@10]", "evaluate.headline=[ndcg@10]"]  # fmt: skip


@pytest.fixture(scope="module")
def run(shops, words):
    main(["train", *words, f"run_dir={shops / 'run'}"])
    return RunFolder(shops / "run")


@pytest.fixture(scope="module")
def joined(shops):
    data = Overrides(["data=both"], config_dir=shops / "conf").config().data
    return open_catalog(data, shops / "cache")


def test_tasks_are_measured_catalog_by_catalog(run, shops):
    metrics = json.loads(run.metrics.read_text())
    assert set(metrics["tuned"]) == {f"{name}/{task}" for name in ("left", "right") for task in SITUATIONS}
    assert (run.tasks / "left" / "zero_shot" / "run.tuned.trec").is_file()
    page = run.report.read_text()
    assert "left: New searches, new products" in page and "right: Known searches, known products" in page
    assert set(load_config(run.config).data.catalogs) == {"left", "right"}
    main(["evaluate", "--config-dir", str(shops / "conf"), f"run={run.path}", "data=left", f"out={shops / 'left-out'}"])
    alone = json.loads((shops / "left-out" / "metrics.json").read_text())
    for task in SITUATIONS:
        for model in ("base", "tuned"):
            assert alone[model][task]["ndcg@10"] == pytest.approx(metrics[model][f"left/{task}"]["ndcg@10"], abs=1e-6)


def test_slices_by_columns_of_the_catalogs_own_tables(run, shops, tmp_path, capsys):
    """Ids of a mix begin with the catalog's name, those of its tables do not; one catalog alone has these columns."""
    folder = shops / "left"
    asked = "".join(f"q{n},red things {n},{'winter' if n % 3 else 'summer'}\n" for n in range(24))
    (folder / "asked.csv").write_text("query_id,query,season\n" + asked)
    (folder / "judged.csv").write_text("query_id,product_id,score\n" + "".join(f"q{n},p{n:03},1\n" for n in range(24)))
    rows = (folder / "products.csv").read_text().splitlines()
    stocked = [f"{rows[0]},stock", *(f"{row},{'plenty' if n % 4 else 'few'}" for n, row in enumerate(rows[1:]))]
    (folder / "stocked.csv").write_text("\n".join(stocked) + "\n")
    words = [f"run={run.path}", "data.catalogs.left.products=stocked.csv",
             "evaluate.tasks=[left/asked,right/zero_shot]",
             "data.catalogs.left.tasks.asked={queries: asked.csv, qrels: judged.csv, corpus: all}",
             "evaluate.part=all"]  # fmt: skip
    main(["evaluate", *words, "evaluate.slices=[season,stock]", f"out={tmp_path}"])
    with open(tmp_path / "slices.csv") as file:
        found = {(row["task"], row["column"], row["value"]): int(row["n"]) for row in csv.DictReader(file)}
    of_left = {key[1:]: n for key, n in found.items() if key[0] == "left/asked"}
    assert of_left == {("season", "winter"): 16, ("season", "summer"): 8, ("stock", "plenty"): 18, ("stock", "few"): 6}
    assert {key[2] for key in found if key[0] == "right/zero_shot"} == {"none"}
    with pytest.raises(SystemExit):
        main(["evaluate", *words, "evaluate.slices=[saeson]", f"out={tmp_path}"])
    assert "no column 'saeson'. Did you mean 'season'?" in capsys.readouterr().err


@pytest.mark.parametrize("stopped_after", [1, 4])
def test_resumed_at_any_step_is_uninterrupted(run, words, tmp_path, stopped_after):
    with dies_after(stopped_after):
        main(["train", *words, f"run_dir={tmp_path / 'run'}"])
    main(["train", *words, f"run_dir={tmp_path / 'run'}", "train.resume=auto"])
    assert (tmp_path / "run" / "steps.csv").read_bytes() == (run.path / "steps.csv").read_bytes()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == json.loads(run.metrics.read_text())


def test_other_shares_are_another_run(run, words, capsys):
    with pytest.raises(SystemExit):
        main(["train", *words, f"run_dir={run.path}", "train.resume=auto", "data.mix.left=0.5"])
    assert "data.mix.left was 0.75, is now 0.5" in capsys.readouterr().err


def test_equal_ids_of_two_catalogs_are_two_products(joined):
    left, right = joined.parts["left"], joined.parts["right"]
    ids = list(joined.documents.ids)
    assert len(set(ids)) == len(ids) == len(left.documents) + len(right.documents) == 128
    assert ids[0].startswith("left/p") and ids[-1].startswith("right/p")
    assert set(left.documents.ids) < set(right.documents.ids), "the same words in both tables"
    rows = np.array([127, 3, 48, 50])
    assert [joined.documents[int(row)]["title"] for row in rows] == joined.documents.column("title", rows)
    assert joined.documents.column("title", rows)[1] == left.documents[3]["title"]
    assert joined.documents.hashes("title")[48] == right.documents.hashes("title")[0]
    assert not joined.documents.present(np.arange(48, 128))[:, 2].any(), "right has no brand"
    assert joined.documents[127] == right.documents[79] | {"brand": None}
    assert joined.documents.place(48).startswith("catalog right, shard")
    task, own = joined.task("right/zero_shot"), right.task("zero_shot")
    assert (task.corpus - 48 == own.corpus).all() and (task.query - len(left.queries) == own.query).all()
    with pytest.raises(KeyError, match="There is no task 'middle/zero_shot'; the tasks: left/in_domain"):
        joined.task("middle/zero_shot")


def test_doctor_gives_a_page_a_catalog_and_one_of_the_mix(words, tmp_path, capsys):
    main(["doctor", *words, f"out={tmp_path}"])
    said = capsys.readouterr().out
    assert [said.count(f"gcl doctor: {name}") for name in ("left", "right", "both")] == [1, 1, 1]
    mix = json.loads((tmp_path / "doctor.json").read_text())["batches"]["mix"]
    assert mix["left"]["pairs"] == 3 * mix["right"]["pairs"] and "left: 108 pairs per epoch" in said
    assert "batches" not in json.loads((tmp_path / "left" / "doctor.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.mix.middle=1", "data=middle: there is no"),
        ("data.mix.left=0", "data.mix.left is 0.0: a share is a number above 0"),
        ("data.mix.left=nan", "a share is a number above 0"),
        ("data.batches=two", "expected one of [mixed, one]"),
        ("data.split.queries=0.5", "write data.catalogs.left.split"),
        ("data.catalogs.middle.root=x", "data.mix names no such catalog; it names left, right"),
        ("data.catalogs.left.rot=x", "There is no setting"),
        ("data.catalogs.right.document.brand={modality: image}", "data.document.brand is text in left"),
        ("data.catalogs.right.document.title.weight=0.5", "has the weight 0.4 and prompt '{}' in left, but 0.5"),
        ("+data.document={vendor: {modality: text}}", "none of the document fields vendor"),
        ("data.mix.both=1", "data.mix names both, which is a mix itself"),
    ],
)  # fmt: skip
def test_what_cannot_be_mixed_is_told(shops, change, said):
    with pytest.raises(ConfigError) as caught:
        Overrides(["data=both", change], config_dir=shops / "conf").config()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_settings_go_on_top_of_a_catalog_s_file(shops):
    run = Overrides(
        ["data=both", "data.catalogs.left.split.seed=3", "data.batches=one"], config_dir=shops / "conf"
    ).config()
    assert run.data.catalogs["left"].split.seed == 3 and run.data.catalogs["right"].split.seed == 0
    assert list(run.data.document) == ["image", "title", "brand"] and run.data.document["title"].weight == 0.4
    part = Overrides(["data=both", "+data.document={image: {modality: image}}"], config_dir=shops / "conf").config()
    with pytest.raises(ValueError, match="names image, and catalog left, shard .* has none of them"):
        open_catalog(part.data, shops / "cache")
