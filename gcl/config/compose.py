"""The typed config of a run, how it is composed from conf/, and build(), which turns a node into an object.

Everything here is checked before torch is imported: a typo, a wrong type or an unknown choice is refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from gcl.config.checks import check
from gcl.config.explain import bad_yaml, explain, several_values, unknown_key
from gcl.config.folder import GROUPS, conf_folder
from gcl.config.locations import anchored, locate, own_folder
from gcl.config.schema import RunConfig
from gcl.config.secrets import without_secrets
from gcl.config.shape import shaped
from gcl.config.trust import check_untrusted, read_catalog, read_untrusted, without_access
from gcl.config.words import for_hydra, one_by_one, quoted, value_of, weighed_by_hand
from gcl.config.yaml import SCHEME, YamlSource, read
from gcl.data.catalog import Catalog
from gcl.data.mix import check_names, complete_mix
from gcl.errors import ConfigError, nearest
from gcl.files.atomic import write_text
from gcl.lit.settings import FieldWeights
from gcl.options import check_numbers, dotted, options_of, plain
from gcl.schema import Field


@cache
def register() -> None:
    """Makes RunConfig the ground that conf/config.yaml is composed on."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins

    ConfigStore.instance().store(name="run_schema", node=RunConfig)
    Plugins.instance().register(YamlSource)


@cache
def _ground() -> DictConfig:
    """RunConfig with its defaults. Whoever changes it copies it first, which takes a quarter of the time to make it."""
    return OmegaConf.structured(RunConfig)


@dataclass(frozen=True)
class Overrides:
    """The settings of a command line, `key=value` each, and the folder of one's own YAMLs that --config-dir names.

    A program has values instead of words: {dotted key: value}, which nobody parses, and a catalog that is in no YAML,
    as a YAML would say it.
    """

    settings: Sequence[str] = ()
    config_dir: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    catalog: Mapping[str, Any] | None = None

    def config(self) -> RunConfig:
        """What they mean. Raises ConfigError."""
        words = for_hydra_all(self.settings, self.config_dir)
        return compose_words(words, self.config_dir, values=self.values, catalog=self.catalog)

    @property
    def keys(self) -> set[str]:
        own = {"data"} if self.catalog is not None else set()
        return {setting.partition("=")[0] for setting in self.settings} | self.values.keys() | own


def compose_words(
    arguments: list[str],
    config_dir: str | os.PathLike | None,
    *,
    values: Mapping[str, Any] | None = None,
    catalog: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The config that arguments in Hydra's grammar mean, the folder of one's own YAMLs among them. values, catalog: as
    in Overrides. Raises ConfigError."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        try:
            config = hydra_compose("config", overrides=arguments, return_hydra_config=True)
            with open_dict(config):
                hydra = config.pop("hydra")
                if catalog is not None:
                    config.data = OmegaConf.merge(OmegaConf.structured(Catalog), shaped(catalog, settings=Catalog))
                _put(config, values or {})
            complete(config, hydra, values or {}, own=catalog is not None)
            return typed(config)
        except ConfigError:
            raise
        except Exception as error:  # Hydra and OmegaConf raise a dozen kinds for one thing: an argument they refuse
            raise explain(error, _known_keys(arguments), config_dir) from error


def for_hydra_all(arguments: Sequence[str], config_dir: str | os.PathLike | None, *, sweep: bool = False) -> list[str]:
    """The settings of a command line as Hydra takes them, the folder that --config-dir names among them."""
    if not sweep and (several := next((one for one in arguments if _names_several(one)), None)):
        raise several_values(several)
    settings = [for_hydra(one, sweep=sweep) for argument in arguments for one in one_by_one(argument)]
    if config_dir is None:
        return settings
    if not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir}: there is no such folder.")
    return [*settings, f"hydra.searchpath=[{quoted(f'{SCHEME}://{Path(config_dir).resolve()}')}]"]


def _names_several(argument: str) -> bool:
    """Whether it names several choices of a group."""
    key, _, value = argument.partition("=")
    return key in GROUPS and "," in value and value[:1] not in ("'", '"')


def _known_keys(arguments: Sequence[str]) -> set[str]:
    """Every key that could have been meant: those of the chosen YAMLs, if they compose, and the groups."""
    from hydra import compose as hydra_compose

    choices = [one for one in arguments if "." not in one.partition("=")[0].replace("hydra.searchpath", "hydra")]
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    groups |= {option.key for option in options_of(RunConfig) if "<" not in option.key and "[" not in option.key}
    for tried in (choices, []):
        try:
            return _keys(hydra_compose("config", overrides=tried)) | groups
        except Exception:  # one of the choices is what is being explained
            continue
    return _keys(_ground()) | groups


def complete(config: DictConfig, hydra: Any, values: Mapping[str, Any] = {}, *, own: bool = False) -> None:
    """Makes the paths of the catalog absolute, and puts the YAML of each catalog that data.mix names below
    data.catalogs, with the settings given there on top. A field's weight that is given here is not chosen after
    training. hydra: Hydra's own part of the composed config. values: what a program set, by key. own: the catalog is in
    no YAML."""
    from hydra import compose as hydra_compose

    sources = hydra.runtime.config_sources
    where = [argument for argument in hydra.overrides.hydra if argument.startswith("hydra.searchpath=")]
    keys = {argument.lstrip("+").partition("=")[0] for argument in hydra.overrides.task} | set(values)
    typed_ones = [*hydra.overrides.task, *(f"{key}={_weights_in(value)}" for key, value in values.items())]
    if weighed_by_hand(typed_ones) and "train.field_weights" not in keys:
        config.train.field_weights = FieldWeights.given
    choice = str(hydra.runtime.choices.data)
    folder = None if own else own_folder(choice, sources)
    locate(config.data, folder, typed=_below(keys, "data."), name=choice)
    for name in config.data.mix:
        whole = hydra_compose("config", overrides=[f"data={name}", *where]).data
        locate(whole, own_folder(name, sources), name=name)
        on_top = OmegaConf.create(config.data.catalogs.get(name) or {})
        locate(on_top, folder, typed=_below(keys, f"data.catalogs.{name}."), name=choice, partial=True)
        with open_dict(config.data.catalogs):
            merged = OmegaConf.merge(OmegaConf.structured(Catalog), OmegaConf.to_container(whole), on_top)
            config.data.catalogs[name] = OmegaConf.to_container(merged)


def _weights_in(value: Any) -> Any:
    """A program's fields with the weights that it gave: each has one, given or not."""
    if isinstance(value, Mapping) and all(isinstance(one, Field) for one in value.values()):
        return {name: {"weight": one.weight} for name, one in value.items() if one.weight != Field().weight}
    return value


def _below(keys: Iterable[str], prefix: str) -> set[str]:
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}


def typed(config: DictConfig, *, trained: bool = False) -> RunConfig:
    """The config as dataclasses, everything resolved. Raises ConfigError for a value that is missing or impossible.

    trained: it is a run's, whose training is over (see `checks.check`).
    """
    try:
        _refuse_missing(config)
        # Merged once more so that keys added with "+" are refused like any other unknown one.
        whole = _literal(OmegaConf.to_container(config, resolve=True))
        strict = OmegaConf.unsafe_merge(deepcopy(_ground()), whole)  # without a copy of what is new
    except OmegaConfBaseException as error:
        raise explain(error, _keys(_ground())) from error
    return _object_of(strict, trained=trained)


def _refuse_missing(config: Any) -> None:
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{', '.join(missing)} must be given: in a YAML, or as {missing[0]}=… on the command line.")


def _object_of(strict: Any, *, trained: bool) -> RunConfig:
    """`typed` of a config that has the keys of RunConfig and no others."""
    try:
        _refuse_missing(strict)
        run: RunConfig = OmegaConf.to_object(strict)  # type: ignore[assignment]
        run.data = _with_whole_catalogs(run.data)
    except OmegaConfBaseException as error:
        raise explain(error, _keys(_ground())) from error
    check(run, trained=trained)
    return run


def _with_whole_catalogs(data: Catalog) -> Catalog:
    try:
        check_names(data)
        for name, catalog in data.catalogs.items():
            data.catalogs[name] = _catalog(catalog)
        return complete_mix(data) if data.mix else data
    except ValueError as error:
        if isinstance(error, OmegaConfBaseException):  # which may be ValueErrors, too
            raise
        raise ConfigError(str(error)) from error


def catalog_of(name: str, *, untrusted: bool = False, trust: Sequence[str] = ()) -> Catalog:
    """The catalog of a name in conf/data, or of a YAML's path. Raises ConfigError.

    untrusted: a run folder names it, so a YAML is read as data and sends no keys. trust: as in `load_config`.
    """
    if not name.endswith((".yaml", ".yml")):
        return Overrides([f"data={name}"]).config().data
    if not Path(name).is_file():
        raise ConfigError(f"There is no file {name}: give a name from conf/data or the path of a catalog's YAML.")
    try:
        content = read_catalog(Path(name), trust) if untrusted else read(name)
        catalog = catalog_from(content, folder=Path(name).resolve().parent, name=Path(name).stem)
        return without_access(catalog) if untrusted else catalog
    except yaml.YAMLError as error:
        raise bad_yaml(error, None) from error


def catalog_from(settings: Mapping[str, Any], *, folder: Path | None = None, name: str = "") -> Catalog:
    """The catalog of what a YAML says. folder: where its relative paths start; None: the working folder. name: of the
    YAML. Raises ConfigError."""
    try:
        content = OmegaConf.merge(OmegaConf.structured(Catalog), shaped(settings, settings=Catalog))
        assert isinstance(content, DictConfig)
        if content.mix or content.catalogs:
            raise ConfigError(
                f"{name}.yaml is a mix of catalogs (mix, catalogs), and one catalog is expected here: give each of its "
                "catalogs by itself."
            )
        locate(content, folder, name=name)
        return _catalog(content)
    except OmegaConfBaseException as error:
        raise explain(error, _keys(OmegaConf.structured(Catalog))) from error


def _catalog(content: Any) -> Catalog:
    catalog = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Catalog), content))
    assert isinstance(catalog, Catalog)
    return catalog


def load_config(path: str | Path, *, trust: Sequence[str] | None = ()) -> RunConfig:
    """A run folder's config.yaml, typed. Raises ConfigError, also for a key that an earlier version had.

    It may come from anybody, so it is read as data (gcl/config/trust.py). trust: packages whose objects it may name, as
    the command line says; None: nothing of it will be built, so it may name any.
    """
    path = Path(path)
    content = read_untrusted(path)
    if trust is not None:
        check_untrusted(content, path, trust)
    _modernise(content)
    try:
        merged = OmegaConf.unsafe_merge(deepcopy(_ground()), content)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {explain(error, _keys(_ground()))}") from error
    run = _object_of(merged, trained=True)
    run.data, run.trust = without_access(run.data), list(trust or ())
    for spec in run.evaluate.retention.values() if trust is not None else ():
        spec.untrusted = True  # whatever the folder says
    return run


def _modernise(content: dict[str, Any]) -> None:
    """Values of earlier versions, in place, as they are called today."""
    evaluate = content.get("evaluate")
    if isinstance(evaluate, dict) and evaluate.get("forgetting") == "fail":
        evaluate.update(forgetting="warn", gate="worse")
    loss = content.get("loss")
    if isinstance(loss, dict) and "positive" in (loss.get("same_query"), loss.get("same_document")):
        rules = {rule: "ignore" for rule in ("same_query", "same_document") if loss.get(rule) == "positive"}
        loss.update(rules, target="sigmoid" if loss.get("form") == "sigmoid" else "graded")


def with_values(run: RunConfig, values: Mapping[str, Any], *, trained: bool = False) -> RunConfig:
    """A run's config with plain values of dotted keys on top. trained: as in `typed`. Raises ConfigError."""
    config = OmegaConf.structured(run)
    try:
        _put(config, values)
    except OmegaConfBaseException as error:
        raise explain(error, _keys(config)) from error
    return _object_of(config, trained=trained)


def _put(config: DictConfig, values: Mapping[str, Any]) -> None:
    """Merges values into a config as they are: a mapping adds to what is there."""
    for key, value in values.items():
        config.merge_with(_nested(key, _literal(shaped(_plain(value), key))))


def _plain(value: Any) -> Any:
    """What a program may give for a setting, as YAML has it: paths as texts, numbers of numpy as numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(one) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def with_settings(run: RunConfig, settings: Sequence[str], *, trained: bool = False) -> RunConfig:
    """A run's config with settings like `data.document.title.weight=0` or `~data.document.image` on top. trained: as in
    `typed`."""
    config = OmegaConf.structured(run)
    try:
        for setting in settings:
            key, _, value = setting.lstrip("+~").partition("=")
            parent, _, last = key.rpartition(".")
            above = OmegaConf.select(config, parent) if parent else config
            if above is None or (setting.startswith("~") and last not in above):  # merging would make what is not there
                raise unknown_key(key, _keys(config))
            if setting.startswith("~"):
                del above[last]
            else:
                config.merge_with(_nested(key, value_of(RunConfig, key, value)))
        keys = {setting.lstrip("+~").partition("=")[0] for setting in settings}
        locate(config.data, None, typed=_below(keys, "data."), partial=True)
    except (OmegaConfBaseException, KeyError, TypeError) as error:
        raise explain(error, _keys(config)) from error
    return _object_of(config, trained=trained)


def save_config(run: RunConfig, path: str | Path) -> None:
    """Writes a run's config, resolved, its root absolute; passwords and keys in it are not written
    (gcl/config/secrets.py)."""
    if root := run.data.root:
        run = replace(run, data=replace(run.data, root=anchored(root)))
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(without_secrets(run)), resolve=True))


def under(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of the names, or below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def flatten(run: RunConfig) -> dict[str, Any]:
    """{dotted key: plain value} of a whole config, without passwords and keys; lists count as values."""
    return dict(dotted(plain(without_secrets(run))))


def options_from(kind: type, arguments: Sequence[str], *, example: str, given: Mapping[str, Any] | None = None) -> Any:
    """A dataclass of options from arguments key=value and from `given` values, typed; the error shows the example."""
    known, split = [field.name for field in fields(kind)], [argument.partition("=") for argument in arguments]
    for argument, (key, equals, _) in zip(arguments, split, strict=True):
        if not equals:
            raise ConfigError(f"{argument!r} is not a setting: write key=value. For example: {example}")
        if key.split(".")[0] not in known:
            raise ConfigError(f"There is no option {key!r} here.{nearest(key, known)} For example: {example}")
    try:
        values = [_nested(key, _literal(value_of(kind, key, value))) for key, _, value in split]
        options = OmegaConf.merge(OmegaConf.structured(kind), _literal(dict(given or {})), *values)
        if missing := sorted(OmegaConf.missing_keys(options)):
            raise ConfigError(f"{missing[0]}=… is required. For example: {example}")
        complete = OmegaConf.to_object(options)
        check_numbers(complete)
        return complete
    except (OmegaConfBaseException, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        sentence = str(explain(error, set(known))).rstrip(".")
        raise ConfigError(f"{sentence}. For example: {example}") from error


def _nested(key: str, value: Any) -> DictConfig:
    """{"a": {"b": value}} of "a.b"."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return OmegaConf.create(value)


def _literal(value: Any) -> Any:
    """The value with every text as it is: OmegaConf would replace `${…}` in it."""
    if isinstance(value, dict):
        return {key: _literal(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", value) if isinstance(value, str) else value


def build(node: Any, *args: Any, **extra: Any) -> Any:
    """The object a `_target_` node names; None stays None."""
    if node is None:
        return None
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        # lists and mappings arrive as plain ones: an optimizer keeps what it is given in its checkpoints
        config = OmegaConf.create(node) if isinstance(node, dict) else node
        return instantiate(config, *args, _convert_="all", **extra)
    except InstantiationException as error:
        raise ConfigError(
            f"{node.get('_target_')} cannot be built: {' '.join(str(error.__cause__ or error).split())}"
        ) from error


def _keys(config: Any, prefix: str = "") -> set[str]:
    """All dotted keys of a structured config."""
    keys: set[str] = set()
    for key in config:
        name = f"{prefix}{key}"
        keys.add(name)
        if not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            keys |= _keys(config[key], name + ".")
    return keys
