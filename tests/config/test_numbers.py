"""Every number in the settings is checked by what it means, before anything heavy is loaded: -1, 0, NaN, infinity and
huge numbers are refused in a sentence that names the setting, or the setting allows them and says so."""

import subprocess
import sys
import typing

import numpy as np
import pytest
import torch

from gcl.commands.registry import COMMANDS, list_settings
from gcl.config.compose import Overrides, options_from, with_settings
from gcl.errors import ConfigError
from gcl.loss.weight import check_weights, identity, power
from gcl.optim.settings import check_warmup
from gcl.options import Option, options_of

# Settings of which a number is a matter of taste, with what makes each of them harmless.
NEGATIVE = {
    "data.own_score", "data.grades.<name>", "data.tasks.<name>.grades.<name>",  # scores: the loss gives them a range
    "loss.bias", "model.recipe.batch_size",
}  # fmt: skip
ZERO = NEGATIVE | {
    "data.query.<name>.weight", "data.document.<name>.weight", "data.tasks.<name>.document.<name>",  # no weight
    "data.split.seed", "data.split.dev", "data.max_bad", "data.download.retries", "data.clicks.power",
    "data.clicks.purchase_weight", "data.clicks.least_shown",
    "model.lora.dropout", "loss.false_negative", "loss.terms[].weight", "optim.weight_decay", "optim.warmup",
    "optim.rules.<name>.rate", "optim.rules.<name>.weight_decay", "train.workers", "train.max_skips",
    "evaluate.cache_gb", "evaluate.retention.<name>.limit", "evaluate.seed", "seed", "latency",
    "twice", "overlap", "approximate",
}  # fmt: skip
HUGE = {  # at most what there is, or never
    "data.own_score", "data.grades.<name>", "data.tasks.<name>.grades.<name>", "data.split.seed",
    "loss.tile", "train.micro_batch", "data.store.shard_bytes", "data.store.image_side", "data.download.rate",
    "data.download.max_bytes", "data.clicks.least_shown", "data.max_image_pixels",
    "model.recipe.batch_size", "optim.clip_norm", "plan.documents_per_query", "train.batch_size",
    "train.checkpoint_every", "train.patience", "train.max_skips", "train.spike_factor", "trainer.log_every_n_steps",
    "evaluate.queries", "evaluate.judged", "evaluate.seed", "evaluate.batch_size",
    "evaluate.retention.<name>.sample", "evaluate.benchmark.limit", "compare", "most", "top", "max_image_pixels",
    "optim.warmup", "train.validate_every", "dims", "queries",
}  # fmt: skip
VALUES = {"-1": NEGATIVE, "0": ZERO, ".nan": set(), ".inf": set(), "1" + "0" * 18: HUGE}
ABOVE = {  # what must be there for a setting below it
    "data.clicks": "{}", "evaluate.benchmark": "{size: all}", "data.tasks.<name>": "{queries: q.csv, corpus: all}",
    "evaluate.retention.<name>": "{folder: beir}", "optim.rules.<name>": "{}",
}  # fmt: skip


def numbers(options) -> list[Option]:
    def holds(hint):
        return hint in (int, float) or any(map(holds, typing.get_args(hint)))

    free = {"loss.tile", "train.micro_batch", "train.validate_every"}
    return [option for option in options if holds(option.type) or option.key in free]


@pytest.fixture(scope="module")
def config():
    return Overrides([]).config()


# data.mix has a rule of its own, and catalogs to be named.
SETTINGS = {option.key: option for option in numbers(list_settings()) if option.key != "data.mix"}


@pytest.mark.parametrize("key", SETTINGS)
def test_every_number_of_a_run_is_refused_or_documented(config, key):
    option = SETTINGS[key]
    assert option.documentation or key.startswith(("data.query", "data.document"))
    plain = key.replace("data.query.<name>", "data.query.query").replace("data.document.<name>", "data.document.title")
    if option.entries:
        key, plain = f"{key}.<name>", f"{plain}.x"
    words = [f"{above.replace('<name>', 'x')}={value}" for above, value in ABOVE.items() if key.startswith(f"{above}.")]
    for value, allowed in VALUES.items():
        place = plain.replace("<name>", "x")
        setting = f"loss.terms=[{{weight: {value}}}]" if "[]" in key else f"{place}={value}"
        try:
            with_settings(config, [*words, setting])
            refused = None
        except ConfigError as error:
            refused = str(error)
        if key in allowed:
            continue
        assert refused, f"{setting} is taken without a word"
        assert place.split(".x")[0].split("[]")[0].rpartition(".")[2] in refused or value.strip(".") in refused


def test_every_number_of_a_command_is_refused_or_documented():
    seen = set()
    for command in COMMANDS.values():
        kind = command.load_options()
        own = [option for option in numbers(options_of(kind)) if "." not in option.key and not option.entries]
        needed = [f"{option.key}=x" for option in options_of(kind) if option.default == "???"]
        for option in own:
            seen.add(option.key)
            for value, allowed in VALUES.items():
                if option.key in allowed:
                    continue
                with pytest.raises(ConfigError, match=option.key):
                    options_from(kind, [*needed, f"{option.key}={value}"], example="gcl")
    assert {"k", "port", "latency", "steps"} <= seen


@pytest.mark.parametrize(
    "word", ["optim.learning_rate=2", "optim.learning_rate=-1", "trainer.precision=bf16-true", "train.epochs=.nan",
             "trainer.precision=16-true", "trainer.precision=half"],
)  # fmt: skip
def test_it_is_said_before_torch_is_loaded(word):
    code = (
        "import sys\nfrom gcl.cli import main\n"
        f"try: main(['train', {word!r}])\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900)
    assert done.stdout.split()[-2:] == ["2", "False"], done.stderr
    assert word.partition("=")[0] in done.stderr


def test_numbers_that_cannot_be_meant_together():
    with pytest.raises(ConfigError, match="leaves nothing"):
        Overrides(["optim.learning_rate=0.5", "optim.weight_decay=3"]).config()
    with pytest.raises(ConfigError, match="100 optimiser steps and would never get to its learning rate"):
        Overrides(["train.max_steps=100", "optim.warmup=500"]).config()
    check_warmup(0.05, 1)
    check_warmup(100, 100)


@pytest.mark.parametrize(
    "setting, told",
    [("optim.optimizer.betas=[0.9,1.0]", r"betas\[1\]=1.0: a number of at least 0 and below 1"),
     ("optim.optimizer.eps=-1", "optim.optimizer.eps=-1: "), ("optim.schedule.floor=1.5", "optim.schedule.floor=1.5: "),
     ("loss.score_to_weight.low=100", "low=100 with loss.score_to_weight.high=100"),
     ("loss.score_to_weight.floor=2", "loss.score_to_weight.floor=2: "),
     ("trainer.devices=0", "trainer.devices=0: "), ("trainer.devices=1.5", "trainer.devices=1.5: "),
     ("trainer.devices=[]", "trainer.devices="), ("data.split.seed=-1", "data.split.seed=-1: "),
     ("data.store.shard_bytes=1", "data.store.shard_bytes=1: a number of at least 1,000,000"),
     ("evaluate.depth=1000000000", "evaluate.depth=1000000000: "),
     ("model.context_length=10000000", "model.context_length=10000000: "),
     ("trainer.options.limit_train_batches=-2", "limit_train_batches=-2: a number above 0"),
     ("trainer.options.gradient_clip_val=-5", "gradient_clip_val=-5: "),
     ("trainer.options.accumulate_grad_batches=0", "accumulate_grad_batches=0: ")],
)  # fmt: skip
def test_numbers_of_new_trainings(config, setting, told):
    """Refused for a new training; a run that an earlier version trained with them still opens."""
    with pytest.raises(ConfigError, match=told):
        Overrides([setting]).config()
    with_settings(config, [setting], trained=True)


@pytest.mark.parametrize("setting", ["trainer.devices=2", "trainer.devices=[0,2]", "trainer.devices=-1",
                                     "trainer.devices=auto", "trainer.options.max_epochs=-1",
                                     "trainer.options.limit_val_batches=0.5"])  # fmt: skip
def test_numbers_that_stay_allowed(setting):
    Overrides([setting]).config()


def test_weights_that_float32_cannot_compute_with_are_refused():
    check_weights(identity, np.float32([0, 1e-20, 1e20]))
    for scores, told in (([1, 1e35], "1e[+]35"), ([1e-35, 1], "1e-35"), ([0, 0], "weight 0")):
        with pytest.raises(ValueError, match=told):
            check_weights(identity, np.float32(scores))
    with pytest.raises(ValueError, match="The score 1.5 gets"):  # 0.005^15
        check_weights(lambda score: power(score, 15.0, floor=0), np.float32([1, 1.5, 100]))
    check_weights(lambda score: torch.full_like(score, 3), np.float32([5]))
