"""The texts of `gcl --help`, `gcl <command> --help` and `gcl help <setting>`, all made from the records of commands
and the documentation of settings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from gcl.commands.registry import COMMANDS, Command, list_settings
from gcl.config.folder import GROUPS, choices_of, default_of, purpose_of, values_in_yamls
from gcl.options import MISSING, Option, shown


def overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = ["gcl: fine-tune a product-search model on your own catalog.", "", "Commands:"]
    for command in COMMANDS.values():
        lines += [f"  {command.name:<{width}}{command.help}", f"  {'':<{width}}  {command.example}"]
    return "\n".join([
        *lines,
        "",
        "gcl <command> --help     the command's options and settings, with an example",
        "gcl help <setting>       one setting or a group of them: gcl help train.micro_batch, gcl help train",
        "gcl --version",
        'Settings are written key=value: train.epochs=3. Completion: eval "$(gcl completion bash)" (or zsh, fish).',
    ])  # fmt: skip


def help_of(command: Command) -> str:
    """What a command does, its options, and, of a composed one, the config groups it takes with their choices."""
    lines = [f"gcl {command.name}: {command.help}", "", f"  {command.example}", ""]
    options = command.list_options()
    if options:
        lines += ["Options", *_entries(_with_defaults(options) if command.settings else options, bare=command.bare), ""]
    if command.composed:
        lines += ["Config groups (group=choice)"]
        for group in command.groups:
            lines += _hanging(f"  {group:<13}", ", ".join(choices_of(group)))
        lines += [
            "",
            "Every setting can be given by its key: train.batch_size=512 data.document.title.weight=0.5",
            "A field is left out with ~data.document.brand. gcl help train lists the settings of train, and so on.",
            "",
            "  --config-dir DIR   a folder of your own YAMLs, for example DIR/data/my_catalog.yaml",
            "  --cfg job          print the composed config and stop",
        ]
        if command.sweep:
            lines.append("  --multirun         one run per combination: seed=0,1,2")
    return "\n".join(lines).rstrip()


def _with_defaults(options: Sequence[Option]) -> list[Option]:
    """The settings of a run with the default that conf/ gives them, where it gives one."""
    completed = []
    for option in options:
        try:
            completed.append(dataclasses.replace(option, default=default_of(option.key)))
        except KeyError:
            completed.append(option)
    return completed


def help_about(topic: str) -> str:
    """A command, a group of settings, or one setting. Raises ConfigError naming the nearest."""
    known = _with_defaults(list_settings())
    matching = [option for option in known if _matches(option.key, topic)]
    if not matching and topic in COMMANDS:
        return help_of(COMMANDS[topic])
    if not matching and topic in GROUPS:
        return "\n".join([f"{topic}: a config group", "", *_choices(topic)])
    if not matching:
        of_commands = {command.name: _with_defaults(command.list_options()) for command in COMMANDS.values()}
        owners = {name: [one for one in options if one.key == topic] for name, options in of_commands.items()}
        if any(owners.values()):
            return "\n".join(line for name, own in owners.items() if own for line in [f"gcl {name}", *_entries(own)])
        from gcl.config.explain import unknown_key

        raise unknown_key(topic, {option.key for option in known} | set(COMMANDS))
    option = matching[0]
    return _group(option, topic, known) if option.below is not None else _setting(option, topic)


def _group(option: Option, topic: str, known: Sequence[Option]) -> str:
    """A group of settings: what it is about, its YAMLs, and a line for each setting in it."""
    assert option.below is not None
    lines = [f"{topic}: {option.documentation or _first_sentence(option.below)}", ""]
    if topic in GROUPS:
        lines += [*_choices(topic), ""]
    pattern = re.compile(rf"{re.escape(option.key)}(\.<name>|\[\])?\.[^.]+")
    inside = [setting for setting in known if pattern.fullmatch(setting.key)]
    lines += ["Settings", *_entries(inside), "", f"More about one of them: gcl help {inside[0].key}"]
    if topic in COMMANDS:
        lines.append(f"The command of this name: gcl {topic} --help")
    return "\n".join(lines)


def _setting(option: Option, topic: str) -> str:
    """One setting: meaning, values, default, and which YAMLs of conf/ set it."""
    wide = _width()
    lines = [topic, *textwrap.wrap(option.documentation or "(not documented)", wide - 2, initial_indent="  ",
                                   subsequent_indent="  "), ""]  # fmt: skip
    lines += _hanging("  values    ", option.values)
    default = "a YAML or the command line must give it" if option.default is MISSING else shown(option.default)
    lines += _hanging("  default   ", default)
    set_by = [f"{file}: {shown(value)}" for file, value in values_in_yamls(topic)]
    for number, line in enumerate(set_by):
        lines += _hanging("  set by    " if not number else " " * 12, line)
    if option.key == topic:
        value = next((one for one in option.choices if one != shown(option.default)), "…")
        lines.append(f"  example   gcl train {topic}={value}")
    return "\n".join(lines)


def _choices(group: str) -> Iterator[str]:
    yield f"YAMLs ({group}=choice)"
    names = choices_of(group)
    width = max(map(len, names), default=0) + 2
    for name in names:
        yield from _hanging(f"  {name:<{width}}", purpose_of(group, name))


def _entries(options: Sequence[Option], *, bare: str | None = None) -> Iterator[str]:
    """For each option its key with values and default, then its documentation."""
    width = min(max(len(option.key) for option in options) + 3, 36)
    for option in options:
        if option.below is None:
            told = [option.values, "required" if option.default is MISSING else f"default {shown(option.default)}"]
        else:
            told = ["settings below it"]
        told += ["also as bare arguments"] if option.key == bare else []
        yield from _hanging(f"  {option.key + '=':<{width}}", "; ".join(told))
        yield from textwrap.wrap(option.documentation, _width() - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _hanging(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, _width() - len(label), break_long_words=False, break_on_hyphens=False) or [""]
    return [(label if not number else " " * len(label)) + line for number, line in enumerate(lines)]


def _first_sentence(settings: type) -> str:
    text = " ".join((inspect.getdoc(settings) or "").split())
    if not text or text.startswith(f"{settings.__name__}("):  # what dataclass writes where there is no docstring
        return ", ".join(field.name for field in dataclasses.fields(settings))
    return text.partition(". ")[0].rstrip(".") + "."


def _matches(key: str, topic: str) -> bool:
    """Whether a key is meant: `data.document.title.weight` is an example of `data.document.<name>.weight`."""
    if key == topic:
        return True
    pattern = re.escape(key).replace(re.escape(".<name>"), r"\.[^.]+").replace(re.escape("[]"), r"(\[\d*\])?")
    return re.fullmatch(pattern, topic) is not None


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 120)
