"""The commands of the console script, one record each: dispatch, help, completion and the documentation read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from gcl.config.folder import GROUPS
from gcl.options import Option, options_of


@dataclass(frozen=True)
class NoOptions:
    """A command that has no options besides the settings of a run."""


@dataclass(frozen=True)
class Command:
    """A command: the function `run` of gcl/commands/<name>.py, or of another `module`, which is imported only when it
    is used. Its first argument are the options, a dataclass each field of which is a `key=value` of the command line; a
    composed command gets the command line's Overrides as well.

    composed: it takes the settings of a run (RunConfig, composed from conf/) as well.
    groups: the config groups that matter to it. settings: the keys of a run that are options of this command.
    bare: the option that arguments without `key=` belong to.
    sweep: `module:function` for a config of each combination that --multirun makes, where the command can be swept.
    after_sweep: `module:function`, called with the folder of the sweep at its end.
    """

    name: str
    help: str
    example: str
    module: str = ""
    composed: bool = False
    groups: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    bare: str | None = None
    sweep: str | None = None
    after_sweep: str | None = None

    def load_options(self) -> type:
        run = self.load_run()
        return getattr(import_module(run.__module__), next(iter(run.__annotations__.values())))

    def list_options(self) -> list[Option]:
        """Its own options, then the settings of a run that are its options."""
        own = [option for option in options_of(self.load_options()) if "." not in option.key]
        known = {option.key: option for option in list_settings()} if self.settings else {}
        return [*own, *(known[key] for key in self.settings)]

    def load_run(self) -> Callable[..., Any]:
        return import_module(self.module or f"gcl.commands.{self.name.replace('-', '_')}").run


@cache
def list_settings() -> tuple[Option, ...]:
    """Every setting of a run."""
    from gcl.config.schema import RunConfig

    return tuple(options_of(RunConfig))


_MEASURING = ("data", "model", "trainer", "evaluate")
_LIST = (
    Command(
        name="train",
        help="fine-tune a model on a catalog and evaluate it before and after",
        example="gcl train data=my_catalog model=ecommerce-B",
        composed=True,
        groups=GROUPS,
        settings=("name", "run_dir", "cache_dir", "seed"),
        sweep="gcl.commands.train:train_for_sweep",
        after_sweep="gcl.commands.runs:end_sweep",
    ),
    Command(
        name="evaluate",
        help="evaluate runs and models on a catalog's held-out tasks",
        example="gcl evaluate run=outputs/…   or   gcl evaluate data=my_catalog model=siglip-B",
        composed=True,
        groups=_MEASURING,
        settings=("run", "models", "out", "trust", "cache_dir", "seed"),
    ),
    Command(
        name="runs",
        help="list runs in one table: settings, results, verdicts",
        example="gcl runs   or   gcl runs outputs/my_catalog format=csv",
        bare="folder",
    ),
    Command(
        name="init",
        help="write a catalog's YAML from its files, and examine it",
        example="gcl init products.csv pairs.csv   or   gcl init --like shopify products_export.csv",
        bare="files",
    ),
    Command(
        name="prepare",
        help="check a catalog's tables and images and write its shards",
        example="gcl prepare data=my_catalog",
        composed=True,
        groups=("data",),
        settings=("cache_dir",),
        sweep="gcl.commands.prepare:prepare_command",
    ),
    Command(
        name="index",
        help="index WebDataset shards that another program wrote",
        example="gcl index shards='laion/{00000..00127}.tar' out=laion-index",
    ),
    Command(
        name="embed",
        help="write a run's vectors of a catalog of any size",
        example="gcl embed run=outputs/… data=my_catalog out=vectors",
        composed=True,
        groups=("data", "trainer"),
        settings=("run", "out", "trust", "cache_dir"),
    ),
    Command(
        name="doctor",
        help="find problems in a catalog before training",
        example="gcl doctor data=my_catalog all=true   or   gcl doctor run=outputs/…",
        module="gcl.commands.doctor.command",
        composed=True,
        groups=("data", "model", "loss", "optim", "trainer", "experiment"),
        settings=("run", "out", "trust", "cache_dir", "seed"),
    ),
    Command(
        name="sweep-weights",
        help="find better field weights without training again, and say whether they hold on other queries",
        example="gcl sweep-weights run=outputs/…",
        composed=True,
        groups=_MEASURING,
        settings=("run", "out", "trust", "cache_dir", "seed"),
    ),
    Command(
        name="merge",
        help="average the weights of runs of the same model and data, as the dev half decides",
        example="gcl merge 'runs=[outputs/…,outputs/…]'",
    ),
    Command(
        name="search",
        help="search a run's catalog in a web page or, given a query, in the terminal",
        example='gcl search run=outputs/… "red running shoes" k=5',
        bare="text",
    ),
    Command(
        name="judge",
        help="grade in a web page what the compared models show and nobody judged",
        example="gcl judge run=outputs/…   or   gcl judge data=my_catalog 'models=[siglip-B,ecommerce-B]'",
        composed=True,
        groups=_MEASURING,
        settings=("run", "models", "out", "trust", "cache_dir", "seed"),
    ),
    Command(
        name="export",
        help="export a run's model to formats that other libraries load",
        example="gcl export run=outputs/… out=my_model",
    ),
    Command(
        name="deploy",
        help="load a run's catalog into a vector engine, and check that it ranks as measured",
        example="gcl deploy run=outputs/… engine=qdrant",
    ),
    Command(
        name="push",
        help="upload an exported folder to the Hugging Face Hub",
        example="gcl push out=my_model push=owner/name",
    ),
    Command(
        name="completion",
        help="print the shell's completion script",
        example='eval "$(gcl completion bash)"',
        bare="shell",
    ),
)
COMMANDS: dict[str, Command] = {command.name: command for command in _LIST}
