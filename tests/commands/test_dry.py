"""trainer=dry: a run on paper, which trains nothing and writes nothing."""

import re

import pytest

from gcl.cli import main
from gcl.commands.train import train
from gcl.config.compose import Overrides
from gcl.errors import ConfigError

WORDS = ("data=shop", "model=tiny", "trainer=dry", "train.workers=0")


def words(shop, *more):
    return ["train", "--config-dir", str(shop / "conf"), f"cache_dir={shop / 'prepared'}", *WORDS, *more]


def rows_of(printed):
    """{(kind, what): how much} of the printed table."""
    cells = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines())
    return {(row[0], row[1]): row[2] for row in cells if len(row) == 3}


def test_a_run_on_paper(shop, tmp_path, capsys):
    run = tmp_path / "run"
    more = ("train.batch_size=32", f"run_dir={run}", "train.epochs=2")
    main(words(shop, *more, "trainer.dry.world=4"))
    four = rows_of(capsys.readouterr().out)
    main(words(shop, *more, "trainer.dry.world=1"))
    one = rows_of(capsys.readouterr().out)
    assert not run.exists()
    counts = [int(told["reads", "documents in a step"].replace(",", "")) for told in (one, four)]
    assert counts[1] == -(-counts[0] // 4)  # each of four reads a quarter, rounded up
    assert one["receives", "in all"] == "0.000 GB" and float(four["receives", "in all"].split()[0]) > 0
    steps = re.match(r"([\d,]+) of 32 pairs, ([\d,]+) an epoch", four["reads", "steps"])
    assert int(steps[1].replace(",", "")) == 2 * int(steps[2].replace(",", ""))
    assert four["holds", "of"] == "80.00 GB" and ("takes", "encoding") in four


def test_what_does_not_fit_is_refused_with_both_numbers(shop, capsys):
    with pytest.raises(SystemExit):
        main(words(shop, "train.batch_size=32", "trainer.dry.memory_gb=0.001"))
    told = capsys.readouterr()
    assert re.search(r"each process would hold [\d.]+ GB, and trainer.dry.memory_gb is 0.001\. Most of it", told.err)
    assert ("holds", "in all") in rows_of(told.out)  # the table comes first


def test_negatives_that_will_be_mined_are_no_hindrance(shop, tmp_path, capsys):
    main(words(shop, "train.batch_size=32", "plan.hard_negatives.source=bm25", f"run_dir={tmp_path / 'run'}"))
    assert ("takes", "in all") in rows_of(capsys.readouterr().out)


def test_it_is_no_training(shop):
    config = Overrides(list(WORDS), str(shop / "conf")).config()
    with pytest.raises(ConfigError, match="trains nothing"):
        train(config)
