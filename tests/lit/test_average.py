"""The average of the weights: the formula, what it copies, and the same on any number of ranks and after kill -9."""

import csv
import signal
from copy import deepcopy

import pytest
import torch
from torch import nn

from gcl.lit.average import Average
from gcl.lit.checkpoint import read_checkpoint
from gcl.run.folder import RunFolder

EMA = ["train.ema=0.9", "train.validate_every=3 steps", "train.checkpoint_every=1"]


def averages(run, name="last"):
    return read_checkpoint(getattr(run, name))["average"]


def close(ours, theirs, most):
    assert ours["updates"] == theirs["updates"] and ours["values"].keys() == theirs["values"].keys()
    for name, value in theirs["values"].items():
        assert (ours["values"][name] - value).abs().max() <= most, name


def test_it_is_the_loop_in_float64_over_what_is_trained():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2)).double()
    module[2:].requires_grad_(False)
    average = Average(module, 0.75)
    expected = {name: value.detach().tolist() for name, value in module[0].named_parameters("0")}
    for step in range(1, 40):
        with torch.no_grad():
            module[0].weight += torch.randn(4, 3)
        decay = min(0.75, (1 + step) / (10 + step))
        for name, kept in expected.items():
            now = module.state_dict()[name].tolist()
            for place, value in enumerate(now):
                if isinstance(value, list):
                    kept[place] = [decay * old + (1 - decay) * new for old, new in zip(kept[place], value, strict=True)]
                else:
                    kept[place] = decay * kept[place] + (1 - decay) * value
        average.update()
    copied = deepcopy(average.state_dict()["values"])
    assert copied.keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    for name, value in expected.items():
        assert torch.allclose(copied[name], torch.tensor(value, dtype=torch.float64), rtol=1e-12)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with average.put_in_place():
        assert torch.equal(module[0].weight, copied["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.fixture(scope="module")
def averaged(start):
    return start(*EMA).done()


def test_a_validation_measures_both_and_the_best_checkpoint_is_the_better(averaged, whole):
    with open(averaged.path / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dev/ndcg@10"]]
    weights, average = ([float(row[f"{prefix}dev/ndcg@10"]) for row in rows] for prefix in ("", "ema/"))
    kept = next(v for k, v in read_checkpoint(averaged.best)["callbacks"].items() if "BestAndLast" in k)
    assert kept["best"] == max(weights + average) and len(weights) == 2
    best, last = read_checkpoint(averaged.best), read_checkpoint(averaged.last)
    assert best["average"]["is_average"] == (kept["best_prefix"] == "") and last["average"]["is_average"]
    for name, value in read_checkpoint(whole.last)["state_dict"].items():
        assert torch.equal(last["state_dict"][name], value)  # the average does not touch the training
    assert "train.ema=0.9: the best checkpoint has the" in (averaged.path / "results.md").read_text()


def test_kill_9_and_resume_gives_the_same_bits(averaged, start, tmp_path):
    """From last.ckpt, and from a best.ckpt that may hold the average in the weights' place."""
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: writing, step: 5}}"
    assert start(*EMA, kill, run_dir=tmp_path / "run").wait() == [-signal.SIGKILL]
    run = RunFolder(tmp_path / "run")
    start(*EMA, "train.resume=auto", run_dir=run.path).done()
    for name in ("best", "last"):
        ours, theirs = (read_checkpoint(getattr(one, name)) for one in (run, averaged))
        close(ours["average"], theirs["average"], 0)
        assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())


def test_a_checkpoint_of_the_average_is_continued_from_the_weights():
    one = nn.Linear(2, 2)
    average = Average(one, 0.5)
    with torch.no_grad():
        one.weight += 1
    average.update()
    for in_place in (True, False):
        trained = one.weight.detach().clone()
        if in_place:
            with average.put_in_place():
                weights, saved = {k: v.clone() for k, v in one.state_dict().items()}, deepcopy(average.state_dict())
        else:
            weights, saved = one.state_dict(), average.state_dict()
        two = nn.Linear(2, 2)
        two.load_state_dict(weights)
        again = Average(two, 0.5)
        again.load_state_dict(saved)
        assert torch.equal(two.weight, trained)
        close(again.state_dict(), average.state_dict(), 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "world"),
    [(["train.micro_batch=3"], 1), ([], 2), (["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"], 2)],
)
def test_micro_batches_ranks_and_shards_average_the_same(averaged, start, tmp_path, words, world):
    kill = "++callbacks={killer: {_target_: helpers.kill_callback.Killer, moment: validating, step: 3}}"
    if world == 2:
        start(*EMA, *words, kill, world=world, run_dir=tmp_path / "run").wait()
    run = start(*EMA, *words, "train.resume=auto", world=world, run_dir=tmp_path / "run").done()
    close(averages(run), averages(averaged), 1e-5)
