"""What a run used and what it left out, by reason: printed, and kept in its folder."""

import json

from gcl.cli import main
from helpers.trained_shop import write_shop


def test_used_and_left_out_are_printed_and_kept(tmp_path, capsys):
    shop = write_shop(tmp_path / "shop")
    with open(shop / "products.csv", "a", encoding="utf-8") as products, open(shop / "pairs.csv", "a") as pairs:
        products.write("p900,no picture here,,images/none.jpg\n,nameless,,\n")
        pairs.write("red mug,p000,nan\nred mug,p901,5\n,p000,5\n")
    main(["train", "--config-dir", str(shop / "conf"), "data=shop", "model=tiny", "trainer=cpu", "data.max_bad=0.1",
          f"run_dir={tmp_path / 'run'}", f"cache_dir={tmp_path / 'cache'}", "train.batch_size=16", "train.max_steps=1",
          "train.workers=0", "optim.learning_rate=3e-4", "evaluate.metrics=[ndcg@10]",
          "evaluate.headline=[ndcg@10]"])  # fmt: skip
    said = capsys.readouterr().out
    assert "bad rows: 1 of 50 rows of products.csv, 3 of 147 rows of pairs.csv" in said
    for reason in ("no such image 1", "no product id 1", "unknown product id 1", "empty query 1", "no score 1"):
        assert reason in said
    kept = json.loads((tmp_path / "run" / "data.json").read_text())
    assert kept["bad_reasons"]["pairs.csv"] == {"no score": 1, "unknown product id": 1, "empty query": 1}
    assert kept["rows"] == {"products.csv": 50, "pairs.csv": 147} and kept["pairs"] == 144
    assert kept["bad_images"] == {"document.image": {"no such image": 1}}
