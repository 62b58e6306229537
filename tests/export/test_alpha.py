"""Between two models: the ends to the bit, the middle by arithmetic, the choice by the dev half and what is kept."""

import json

import pytest
import torch

from gcl.cli import main
from gcl.config.compose import load_config
from gcl.data.prepare.prepare import prepare
from gcl.data.store.prepared import open_prepared
from gcl.data.titles import title_of
from gcl.errors import ConfigError
from gcl.model.interpolate import Point, choose, interpolate
from gcl.retrieval.settings import RetentionConfig
from gcl.run.contestants import base_and_tuned
from gcl.run.interpolation import alpha_lines, between, move, parse_alpha


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(5, 3, generator=generator),
        "half": torch.randn(4, generator=generator).half(),
        "running_var": torch.rand(3, generator=generator),
        "zero": torch.tensor([-0.0, float("inf")]) if seed else torch.tensor([0.0, 1.0]),
        "num_batches_tracked": torch.tensor(seed * 10),
        "logit_scale": torch.tensor(2.0 + seed),
    }


def bits(tensor):
    return tensor.reshape(-1).contiguous().view(torch.uint8).tolist()


def test_the_ends_are_the_two_models_to_the_bit():
    base, tuned = state(0), state(1)
    for alpha, end in ((0, base), (0.0, base), (1, tuned), (1.0, tuned)):
        mixed = interpolate(base, tuned, alpha)
        assert list(mixed) == list(end) and all(bits(mixed[name]) == bits(end[name]) for name in end)
        assert all(mixed[name].data_ptr() != end[name].data_ptr() for name in end), "a copy"


def test_between_the_ends():
    base, tuned = state(0), state(1)
    mixed = interpolate(base, tuned, 0.3)
    for name in ("weight", "running_var", "logit_scale"):
        assert torch.allclose(mixed[name], 0.7 * base[name] + 0.3 * tuned[name], atol=1e-7)
    exact = 0.7 * base["half"].double() + 0.3 * tuned["half"].double()
    assert torch.equal(mixed["half"], exact.half()), "rounded once"
    assert mixed["num_batches_tracked"] == 0 and interpolate(base, tuned, 0.5)["num_batches_tracked"] == 10
    assert all(mixed[name].dtype == base[name].dtype for name in base)
    same = interpolate(base, base, 0.37)
    assert all(torch.equal(same[name], base[name]) for name in ("weight", "half"))


def test_a_bias_that_training_added():
    base, tuned = state(0), {**state(1), "logit_bias": torch.tensor(-9.0)}
    assert "logit_bias" not in interpolate(base, tuned, 0)
    assert interpolate(base, tuned, 0.2)["logit_bias"] == -9


def test_models_that_do_not_fit_are_refused():
    base = state(0)
    with pytest.raises(ValueError, match="alpha=1.2"):
        interpolate(base, base, 1.2)
    with pytest.raises(ValueError, match=r"weight is \[5, 3\].*\[2, 3\]"):
        interpolate(base, {**base, "weight": torch.zeros(2, 3)}, 0.5)
    with pytest.raises(ValueError, match="only the tuned model has extra"):
        interpolate(base, {**base, "extra": torch.zeros(1)}, 0.5)
    with pytest.raises(ValueError, match="only the base has half"):
        interpolate(base, {name: v for name, v in base.items() if name != "half"}, 0.0)


def test_the_choice():
    curve = [Point(0.0, 0.3, {}), Point(0.5, 0.7, {}), Point(0.6, 0.7, {}), Point(1.0, 0.8, {"g": -0.2}, within=False)]
    assert choose(curve).alpha == 0.5, "of equals the one nearer to the base; what has forgotten is out"
    with pytest.raises(ValueError, match="no alpha is within"):
        choose(curve[3:])


@pytest.mark.parametrize("word", ["most", 1.5, -0.1, "nan", True])
def test_words_that_are_no_alpha(word):
    with pytest.raises(ConfigError, match="auto, or a number from 0"):
        parse_alpha(word)
    assert parse_alpha(None) is None and parse_alpha("auto") == "auto" and parse_alpha("0.7") == 0.7


@pytest.fixture(scope="module")
def run(finished):
    config = load_config(finished.config)
    return finished, config, open_prepared(prepare(config.data, config.cache_dir), config.data.schema)


def test_the_ends_of_a_run(run):
    finished, config, prepared = run
    base, tuned = (entry.encoder for entry in base_and_tuned(finished))
    measured = json.loads(finished.metrics.read_text())
    for alpha, name, end in ((0.0, "base", base), (1.0, "tuned", tuned)):
        found = between(finished, config, prepared, alpha)
        assert found.means == measured[name]
        for key, value in end.model.state_dict().items():
            assert torch.equal(found.encoder.model.state_dict()[key], value), key
    half = between(finished, config, prepared, 0.5)
    name = "logit_scale"
    ends = [e.model.state_dict()[name] for e in (base, tuned)]
    assert (
        torch.allclose(half.encoder.model.state_dict()[name], sum(ends) / 2)
        and "alpha = 0.5" in alpha_lines(half.record)[0]
    )


def test_alpha_auto_keeps_to_the_retention(run, tmp_path):
    finished, config, prepared = run
    free = between(finished, config, prepared, "auto")
    curve = free.record["curve"]
    assert [point["alpha"] for point in curve] == [n / 10 for n in range(11)]
    best = max(point["dev"] for point in curve)
    assert free.alpha == min(point["alpha"] for point in curve if point["dev"] == best)
    assert "without a retention set" in "".join(alpha_lines(free.record))
    # A set that only the base answers well: nothing may be lost of it.
    texts = [f"thing number {n}" for n in range(12)]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"d{n}", "text": t}) for n, t in enumerate(texts))
    )
    (tmp_path / "queries.jsonl").write_text(
        "\n".join(json.dumps({"_id": f"q{n}", "text": t}) for n, t in enumerate(texts))
    )
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(f"q{n}\td{n}\t1" for n in range(12))
    )
    config.evaluate.retention = {"general": RetentionConfig(folder=str(tmp_path), limit=0.0)}
    try:
        bound = between(finished, config, prepared, "auto")
    finally:
        config.evaluate.retention = {}
    assert all(set(point["retention"]) == {"general"} for point in bound.record["curve"])
    for point in bound.record["curve"]:
        assert point["within"] == (point["retention"]["general"] >= -1e-9)
    allowed = [point for point in bound.record["curve"] if point["within"]]
    assert bound.alpha == max(allowed, key=lambda point: (point["dev"], -point["alpha"]))["alpha"]
    lines = alpha_lines(bound.record)
    assert "general may lose at most 0" in lines[1] and len([line for line in lines if line.startswith("|")]) == 13


def test_moving_back_and_forth_loses_nothing(run):
    finished, _, _ = run
    base, tuned = (entry.encoder for entry in base_and_tuned(finished))
    ends = [{k: v.clone() for k, v in e.model.state_dict().items()} for e in (base, tuned)]
    for alpha in (0.3, 0.0, 0.9, 1.0):
        move(tuned, *ends, alpha)
    assert all(torch.equal(value, ends[1][name]) for name, value in tuned.model.state_dict().items())


@pytest.mark.slow
def test_the_command(finished, tmp_path):
    out = tmp_path / "out"
    main(["export", f"run={finished.path}", f"out={out}", "formats=[open_clip]", "alpha=0.5"])
    record = json.loads((out / "alpha.json").read_text())
    card = (out / "README.md").read_text()
    assert record["alpha"] == 0.5 and "alpha = 0.5" in card and "The table has no intervals" not in card
    row = next(row for row in record["results"] if row["model"] == "alpha 0.5" and row["metric"] == "ndcg@10")
    assert row["value"] == record["test"][row["task"]]["ndcg@10"] and row["low"] <= row["value"] <= row["high"]
    title, interval = title_of(row["task"]), f"{row['low']:.3f} … {row['high']:.3f}"
    assert f"| {title} | ndcg@10 | alpha 0.5 | {row['value']:.3f} ({interval})" in card
    with pytest.raises(SystemExit):
        main(["export", f"run={finished.path}", f"out={tmp_path / 'no'}", "alpha=most"])
    assert not (tmp_path / "no").exists()
