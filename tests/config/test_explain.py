"""Every way in which Hydra and OmegaConf refuse something is recognised, in the wording of the installed versions."""

import hydra
import omegaconf
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from gcl.config.compose import register
from gcl.config.explain import REFUSALS, explain
from gcl.config.folder import conf_folder

PATTERNS = [pattern for pattern, _ in REFUSALS]
KNOWN = {"train", "train.epochs", "train.batch_size", "loss", "loss.form"}


def refused(override):
    """What Hydra raises for an override, with everything it was caused by."""
    register()
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"), pytest.raises(Exception) as caught:
        omegaconf.OmegaConf.to_object(hydra_compose("config", overrides=[override]))
    return caught.value


def matching(error):
    """The first pattern of the table that matches."""
    import re

    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = "\n".join(map(str, chain))
    return next((pattern for pattern in PATTERNS if re.search(pattern, text)), None)


CASES = {
    r"Error parsing override '([^']*)'": ("train.epochs", "'train.epochs' is not a setting: write key=value"),
    r"Could not find '([^']+)/([^'/]+)'": ("model=tyny", "Did you mean tiny?"),
    r"Environment variable '([^']+)' not found": ("data.root='${oc.env:GCL_NOWHERE}'", "export GCL_NOWHERE=…"),
    r"Interpolation key '([^']+)' not found": ("data.root='${HOME}'", "is written ${oc.env:HOME}"),
    r"Could not override '[^']+'": ("train.epoch=3", "Did you mean train.epochs?"),
    r"Key '[^']+' (?:is )?not in": ("+train={epoch: 3}", "There is no setting"),
    r"does not exist": ("~train.epoch", "Did you mean train.epochs?"),
    r"Invalid value '([^']*)', expected one of \[([^\]]*)\]": (
        "loss.form=sofmax",
        "expected one of [softmax, sigmoid]",
    ),
    r"Ambiguous value for argument '([^']*)'": ("seed=0,1", "add --multirun"),
    r"LexerNoViableAltException: \+*(.*)": ("+loss={naïve: 1}", "Names consist of letters"),
    r"Value '([^']*)' of type '\w+' could not be converted to (\w+)": ("train.epochs=abc", "expected a number"),
    r"Value '([^']*)' is not a valid (bool)": ("data.training=lots", "expected true or false"),
    r"Value '?(.*?)'? \(\w+\) is not a valid input for <enum": ("loss.form=[softmax]", "expected one name"),
    r"Invalid type assigned: \w+ is not a subclass of \w+. value: (.*)": (
        "plan.hard_negatives=model",
        "plan.hard_negatives is a group of settings",
    ),
    r"Invalid value assigned: \w+ is not a ListConfig": ("evaluate.metrics=mrr", "expected a list"),
    r"Key (\S+) \(\w+\) is incompatible with": ("data.grades={1: 4}", "set data.grades.1=… by itself"),
}


@pytest.mark.parametrize("pattern", CASES)
def test_a_refusal_is_recognised_by_its_wording(pattern):
    override, said = CASES[pattern]
    error = refused(override)
    versions = f"hydra {hydra.__version__}, omegaconf {omegaconf.__version__}"
    assert matching(error) == pattern, f"{versions} words it otherwise: {error}"
    told = str(explain(error, KNOWN))
    assert said in told and "\n" not in told, versions


def test_every_pattern_has_a_case():
    assert set(CASES) == set(PATTERNS)


def test_a_wrong_type_is_told_with_its_key():
    assert str(explain(refused("train.epochs=abc"), KNOWN)).startswith("train.epochs=abc: ")
