import pytest
import torch
from torch import nn

from gcl.optim.groups import Rule, freeze, parameter_groups
from gcl.optim.schedule import warmup_cosine


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = nn.Module()
        self.visual.conv1 = nn.Conv2d(3, 4, 2)
        self.visual.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3))
        self.visual.head = nn.Linear(4, 2)
        self.log_scale = nn.Parameter(torch.zeros(()))


def by_name(groups):
    return {name: group for group in groups for name in group["names"]}


def test_norms_biases_and_scale_never_decay():
    of = by_name(parameter_groups(Towers().named_parameters(), learning_rate=1.0, weight_decay=0.1))
    assert of["visual.blocks.0.0.weight"]["weight_decay"] == 0.1
    for name in ("visual.blocks.0.0.bias", "visual.blocks.0.1.weight", "log_scale"):
        assert of[name]["weight_decay"] == 0


def test_every_trained_parameter_is_in_exactly_one_group():
    model = Towers()
    freeze(model, ["visual.conv1.*"])
    groups = parameter_groups(
        model.named_parameters(), learning_rate=1.0, weight_decay=0.1, rules={"visual.*": Rule(0.1)}, layer_decay=0.5
    )
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.requires_grad)


def test_layer_decay_counts_from_the_top():
    of = by_name(parameter_groups(Towers().named_parameters(), learning_rate=1.0, weight_decay=0.1, layer_decay=0.5))
    rates = [of[name]["lr"] for name in ("visual.head.weight", "visual.blocks.2.0.weight", "visual.blocks.0.0.weight")]
    assert rates == [1.0, 0.5, 0.125]
    assert of["visual.conv1.weight"]["lr"] == 0.0625


def test_last_matching_rule_wins():
    rules = {"visual.*": Rule(0.1), "visual.head.*": Rule(2.0, weight_decay=0.0)}
    of = by_name(parameter_groups(Towers().named_parameters(), learning_rate=1.0, weight_decay=0.1, rules=rules))
    assert of["visual.head.weight"]["lr"] == 2.0 and of["visual.head.weight"]["weight_decay"] == 0.0
    assert of["visual.blocks.1.0.weight"]["lr"] == 0.1


@pytest.mark.parametrize(
    "call",
    [
        lambda m: freeze(m, ["visul.*"]),
        lambda m: parameter_groups(m.named_parameters(), learning_rate=1, weight_decay=0, rules={"visul.*": Rule()}),
    ],
)
def test_a_pattern_that_matches_nothing_names_the_nearest(call):
    with pytest.raises(ValueError, match=r"'visul\.\*' matches no parameter.*visual\.\*"):
        call(Towers())


def test_nothing_left_to_train():
    model = Towers()
    freeze(model, ["*"])
    with pytest.raises(ValueError, match="nothing is left to train"):
        parameter_groups(model.named_parameters(), learning_rate=1, weight_decay=0)


def test_cosine_peaks_after_warmup_and_ends_at_its_floor():
    factors = [warmup_cosine(step, warmup=3, total=20, floor=0.1) for step in range(21)]
    assert max(factors) == 1.0 and factors.index(1.0) == 2 and factors[-1] == pytest.approx(0.1)
