"""`gcl doctor` on small shops: a sound one, and one with everything wrong that it is there to find."""

import csv
import json
import shutil

import pytest

from gcl.cli import main
from gcl.commands.doctor.findings import judge
from gcl.commands.doctor.page import text_page

pytestmark = pytest.mark.filterwarnings("ignore")


def doctor(shop, out, *words):
    """(exit status, facts, page)"""
    status = 0
    try:
        main(["doctor", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", f"cache_dir={out}", f"out={out}",
              "train.batch_size=16", *words])  # fmt: skip
    except SystemExit as ended:
        status = ended.code
    return status, json.loads((out / "doctor.json").read_text()), (out / "doctor.txt").read_text()


def test_a_sound_shop(shop, tmp_path, capsys):
    status, facts, text = doctor(shop, tmp_path)
    assert status == 0 and "No problems" in text and text.strip() in capsys.readouterr().out
    assert facts["counts"]["products"] == facts["fields"]["document.title"]["rows"] == 48
    assert facts["fields"]["document.image"]["present"] == sum(n % 13 != 12 for n in range(48))
    assert facts["weights"]["function"] == "linear" and facts["weights"]["quantiles"]["most"] == 1
    assert facts["tokens"]["document.title"]["over"] == 0 and facts["tokens"]["query.query"]["quantiles"]["most"] < 20
    assert facts["batches"]["steps_per_epoch"] == -(-facts["counts"]["training_pairs"] // 16)
    memory = facts["memory"]
    assert memory["total"] == pytest.approx(sum(memory["parts"].values())) and memory["parts"]["activations"] > 0
    assert facts["time"]["epoch"] > 0 and "what counts" in text.lower()


def test_weights_that_refuse_and_a_model_that_is_not_here(shop, tmp_path):
    status, facts, text = doctor(
        shop, tmp_path, "model=siglip-B", "loss.score_to_weight.low=30", "train.batch_size=5000"
    )
    assert status == 1
    problems = [finding["text"] for finding in facts["findings"] if finding["level"] == "problem"]
    assert any(words.startswith("Scores lie in 20") for words in problems)
    assert any("training pairs" in words for words in problems)
    assert "tokens" not in facts and "cannot be fetched" in facts["model"]["note"] and "cannot be fetched" in text


def test_a_shop_whose_rows_are_bad(shop, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(shop, broken)
    with open(broken / "products.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:9]:
        row["image"] = "images/nowhere.jpg"
    with open(broken / "products.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    status, facts, _ = doctor(shop, tmp_path / "out", f"data.root={broken}", "data.bad_images=drop")
    assert status == 1 and "data.max_bad allows" in facts["catalog"]["refused"][0][0]
    assert facts["counts"]["bad_images"] == {"document.image": {"no such image": 9}}  # seen all the same
    _, facts, text = doctor(shop, tmp_path / "absent", f"data.root={broken}")
    (said,) = [found for found in facts["findings"] if "go on without their image (no such image 9)" in found["text"]]
    assert said["level"] == "warning" and "data.bad_images=drop" in text and "nowhere.jpg" in text


def test_a_catalog_that_cannot_be_read_at_all(shop, tmp_path, capsys):
    status, facts, _ = doctor(shop, tmp_path, f"data.pairs={shop / 'parts.csv'}")
    assert status == 1 and "Did you mean pairs.csv" in facts["findings"][0]["text"] and "counts" not in facts
    assert facts["fields"]["document.title"]["rows"] == 48, "what can be read is shown"
    with pytest.raises(SystemExit):
        main(["doctor", "all=maybe"])
    assert "all=true" in capsys.readouterr().err


def test_ready_shards_are_sampled(shop, tmp_path):
    import tarfile
    from io import BytesIO

    for number in range(8):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for row in range(40):
                for kind, data in (("txt", f"query {number} {row % 9}"), ("title.txt", f"title {number} {row}")):
                    member = tarfile.TarInfo(f"{number}-{row}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data.encode()))
    conf = tmp_path / "conf" / "data"
    conf.mkdir(parents=True)
    (conf / "shop.yaml").write_text(
        f"name: ready\nroot: {tmp_path}\nshards: '{{0..7}}.tar'\nquery:\n  query: {{modality: text, column: txt}}\n"
        "document:\n  title: {modality: text}\n"
    )
    _, facts, text = doctor(tmp_path, tmp_path / "out")
    assert facts["counts"]["products"] == 160 and "at most 4 of its shards" in text
    _, facts, _ = doctor(tmp_path, tmp_path / "out", "all=true")
    assert facts["counts"]["products"] == 320


def test_what_is_a_problem_and_what_a_warning():
    none = {"rows": 0, "of": 100, "examples": []}
    leak = {"equal_in_every_field": none, "equal_image": {}, "equal_text": {"title": none}, "near_image": {}}
    assert judge({"leakage": {"document": leak}}) == []
    some = {"rows": 8, "of": 100, "examples": [{"row": 0, "id": "p1", "title": "red shoe"}]}
    by_text = judge({"leakage": {"document": leak | {"equal_text": {"title": some}}}})
    assert [found.level for found in by_text] == ["warning"] and by_text[0].examples == ("p1 red shoe",)
    whole = judge({"leakage": {"query": leak | {"equal_in_every_field": some}}})
    assert [found.level for found in whole] == ["problem"]
    halves = {"dev": {"queries": 9, "judgments": 9}, "test": {"queries": 9, "judgments": 9}, "corpus": 5}
    levels = {key: [found.level for found in judge({"tasks": {"own": halves | {key: 10}}})]
              for key in ("dangling_judgments", "queries_without_relevant")}  # fmt: skip
    assert levels == {"dangling_judgments": ["problem"], "queries_without_relevant": ["warning"]}
    weights = {"count": 10, "bad": 0, "zero": 10, "effective_pairs": 0.0}
    assert judge({"weights": weights})[0].text == "Every pair has weight 0."
    refused = judge({"catalog": {"refused": [["No.", "data.name=yes"]]}})
    text = text_page({"name": "x", "seconds": 1.0}, refused)
    assert "to fix" in text and "do: data.name=yes" in text


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_less_than_four_times_what_importing_takes(tmp_path):
    """Preparing and importing torch included; processor time, so that a busy machine does not decide, nor a slow one:
    it is half a minute of a core on which importing takes 7.5 seconds."""
    import resource
    import subprocess
    import sys

    (tmp_path / "conf" / "data").mkdir(parents=True)
    with open(tmp_path / "products.csv", "w") as products, open(tmp_path / "pairs.csv", "w") as pairs:
        products.write("product_id,title,brand\n")
        pairs.write("query,product_id,score\n")
        for number in range(100_000):
            products.write(f"p{number},large thing number {number} of steel,brand {number % 700}\n")
            pairs.write(f"thing {number % 30_000},p{(number * 7919) % 100_000},{1 + number % 100}\n")
    (tmp_path / "conf" / "data" / "large.yaml").write_text(
        f"name: large\nroot: {tmp_path}\nproducts: products.csv\npairs: pairs.csv\nscore: score\n"
        "query:\n  query: {modality: text}\ndocument:\n  title: {modality: text}\n  brand: {modality: text}\n"
    )
    conf = ["--config-dir", str(tmp_path / "conf")]
    words = ["doctor", *conf, "data=large", "model=tiny", f"cache_dir={tmp_path / 'out'}"]

    def processor_seconds(code):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    whole = processor_seconds(f"from gcl.cli import main; main({words!r})")
    assert whole < 4 * processor_seconds("import torch, gcl.run.training")
