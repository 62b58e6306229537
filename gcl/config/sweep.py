"""`--multirun`: where the runs of a sweep lie, what each is called, and whether its values can be."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcl.config.compose import compose_words, for_hydra_all
from gcl.config.secrets import hide_in_yaml
from gcl.errors import ConfigError

_CHECKED = 20  # configs that are composed before the first run begins, a quarter of a second each
_FOLDER = "hydra.sweep.dir"


@dataclass(frozen=True)
class Sweep:
    """words: the command line as Hydra takes it. folder: gets multirun.yaml and a folder for each run. keys: what
    differs between the runs, as far as the command line says."""

    words: list[str]
    folder: Path
    keys: frozenset[str]

    @property
    def settings(self) -> Path:
        """Where Hydra writes the whole command line and config before the first run."""
        return self.folder / "multirun.yaml"

    def keep_private(self) -> None:
        """Has Hydra write them into a file that nobody else may read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings.unlink(missing_ok=True)
        self.settings.touch(mode=0o600)

    def hide_secrets(self) -> None:
        """Rewrites what Hydra wrote without passwords and keys; a sweeper that wrote nothing leaves nothing."""
        if self.settings.is_file() and not self.settings.stat().st_size:
            self.settings.unlink()
        elif self.settings.is_file():
            hide_in_yaml(self.settings)


def begin_sweep(settings: Sequence[str], config_dir: str | None) -> Sweep:
    """A sweep below outputs/<data>/<name, or sweep_time>, unless hydra.sweep.dir names another folder.

    Raises ConfigError, before anything has run, for a value that is refused, and for a folder that has a sweep already.
    """
    given = dict(setting.lstrip("+").partition("=")[::2] for setting in settings)
    if given.get("run_dir", "null") != "null":
        raise ConfigError(
            f"run_dir={given['run_dir']} would be one folder for every run of the sweep. name=… names the sweep: its "
            "runs get folders below it, called by what differs."
        )
    folder = Path(given.get(_FOLDER, "").strip("'\""))
    if "${" in str(folder):
        raise ConfigError(f"{_FOLDER}={folder}: expected the path of a folder; Hydra's ${{…}} are not read here.")
    words = for_hydra_all(settings, config_dir, sweep=True)
    keys, runs = _varied(words)
    configs = [compose_words(one, config_dir) for one in runs[:_CHECKED]]
    if _FOLDER not in given:
        data = "+".join(dict.fromkeys(config.data.name for config in configs))
        folder = Path("outputs") / _plain(data) / _plain(given.get("name", time.strftime("sweep_%Y-%m-%d_%H-%M-%S")))
        words = [*words, f"{_FOLDER}='{folder}'"]
    if (folder / "multirun.yaml").exists() and "train.resume" not in given:
        raise ConfigError(
            f"{folder} has a sweep already: choose another name=, or go on with its runs by train.resume=auto."
        )
    return Sweep(words, folder, keys)


def _varied(words: Sequence[str]) -> tuple[frozenset[str], list[list[str]]]:
    """The keys with several values, and the settings of runs that together have each value, those of the first run with
    one replaced; without what a sweeper draws itself."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    own = [one for one in words if not one.startswith("hydra") or one.startswith("hydra.searchpath=")]
    try:
        parsed = OverridesParser.create().parse_overrides(own)
    except HydraException:
        return frozenset(), [own]  # composing them tells what is wrong
    listed = [one for one in parsed if not one.is_sweep_override() or one.is_discrete_sweep()]
    values = [[run[0] for run in BasicSweeper.split_arguments([one], max_batch_size=None)[0]] for one in listed]
    first = [one[0] for one in values]
    others = [[*first[:at], value, *first[at + 1 :]] for at, one in enumerate(values) for value in one[1:]]
    return frozenset(one.key_or_group for one in parsed if one.is_sweep_override()), [first, *others]


def run_folder(sweep: Sweep, job: Any) -> Path:
    """The folder of one run, called by the settings in which it differs from the others. job: HydraConfig's."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    keys = sweep.keys | set(job.sweeper.get("params") or ())
    asked = OverridesParser.create().parse_overrides(list(job.overrides.task))
    values = {one.key_or_group: str(one.get_value_element_as_str()) for one in asked}
    folder = sweep.folder / (name_of({key: text for key, text in values.items() if key in keys}) or str(job.job.num))
    if (folder / "config.yaml").exists() and "train.resume" not in values:
        return folder.with_name(f"{folder.name}+{job.job.num}")  # a sweeper may draw the same values again
    return folder


def name_of(values: Mapping[str, str]) -> str:
    """
    >>> name_of({"optim.learning_rate": "1e-05", "model": "siglip-B", "data.tasks.a.split": "'x/y'"})
    'learning_rate=1e-05+model=siglip-B+split=x-y'
    >>> name_of({"data.query.title.weight": "1", "data.document.title.weight": "0.5"})
    'query.title.weight=1+document.title.weight=0.5'
    """
    return "+".join(f"{short}={_plain(text)}" for short, text in zip(shortest(values), values.values(), strict=True))


def shortest(keys: Collection[str]) -> list[str]:
    """Each key by as many of its last parts as tell it from the others.

    >>> shortest(["optim.learning_rate", "seed"]), shortest(["query.a.weight", "document.a.weight"])
    (['learning_rate', 'seed'], ['query.a.weight', 'document.a.weight'])
    """
    ends = [["." + ".".join(key.split(".")[-n:]) for n in range(1, key.count(".") + 2)] for key in keys]
    return [next((e for e in own if sum(f".{key}".endswith(e) for key in keys) == 1), own[-1])[1:] for own in ends]


def _plain(text: str) -> str:
    """A value as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:60] or "-"
