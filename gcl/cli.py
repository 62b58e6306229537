"""The console script: `gcl <command> key=value …`. Imports nothing heavy before the arguments are understood."""

from __future__ import annotations

import difflib
import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from gcl.commands.registry import COMMANDS, Command
from gcl.errors import ConfigError, ProcessLost, interruption, nearest, sentence_of
from gcl.lazy import load

_HYDRA_FLAGS = ("--multirun", "-m", "--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
_INTERRUPTED = "Interrupted. Finished work is kept: run the same command again (training needs train.resume=auto)."
SETTING = re.compile(r"[A-Za-z_][\w.-]*=")


class _Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does, but with another exit status."""


@contextmanager
def _signals_stop() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does, so that it says a sentence and removes what it had begun. What
    is ignored stays so (nohup, a script's background); training and servers listen for themselves. A second one does
    not interrupt the end, but counts where the first was lost: C code that clears errors can clear the exception."""

    def stop(signum: int, _: Any) -> None:
        if os.getpid() != process:  # a worker that was forked
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            return
        ending = sys.exc_info()[1]
        while ending is not None:
            if isinstance(ending, _Stopped):
                return
            ending = ending.__context__
        raise _Stopped

    process, before = os.getpid(), []
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What libraries make while they load stays; looking through it a dozen times is a sixth of the time they take.
    gc.set_threshold(max(10_000, gc.get_threshold()[0]))
    try:
        with _signals_stop():
            _answer(arguments)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, SystemExit) as stop:
        if (interrupt := interruption(stop)) is None:
            raise
        _stop(_INTERRUPTED, 143 if isinstance(interrupt, _Stopped) else 130)
    except ProcessLost as error:
        _stop(str(error), 1)
    except (ValueError, KeyError, OSError) as error:
        if os.environ.get("GCL_TRACEBACK"):
            raise
        _stop(sentence_of(error))


def _answer(arguments: list[str]) -> None:
    first, *rest = arguments or ["--help"]
    if first == "__complete":
        from gcl.commands.completion import complete

        complete(*rest)
        return
    if first in ("-V", "--version"):
        import gcl

        print(f"gcl {gcl.__version__}", flush=True)
        return
    if first in ("-h", "--help", "help"):
        rest = [argument for argument in rest if argument not in ("-h", "--help")]
        from gcl.commands.help import help_about, overview

        print("\n\n".join(map(help_about, rest)) if rest and first == "help" else overview(), flush=True)
        return
    if first not in COMMANDS:
        raise ConfigError(f"There is no command {first!r}.{nearest(first, COMMANDS)}")
    command = COMMANDS[first]
    if "--help" in rest or "-h" in rest:
        from gcl.commands.help import help_of

        print(help_of(command), flush=True)
        return
    _run(command, rest)


def _run(command: Command, arguments: list[str]) -> None:
    """Parses the command line and calls the command with its options and, if it is composed, the overrides."""
    from gcl.config.compose import Overrides, options_from

    if not command.composed:
        command.load_run()(parse_options(command, arguments))
        return
    options = command.load_options()
    own = {field.name for field in fields(options)}
    mine = [argument for argument in arguments if argument.partition("=")[0] in own]
    rest = [argument for argument in arguments if argument not in mine]
    if any(argument.split("=")[0] in _HYDRA_FLAGS for argument in rest):
        _run_in_hydra(command, rest)
        return
    overrides, config_dir = _without_config_dir(rest)
    _refuse_others(command, overrides)
    parsed = options_from(options, mine, example=command.example)
    command.load_run()(parsed, Overrides(overrides, config_dir))


def parse_options(command: Command, arguments: Sequence[str]) -> Any:
    """The options of a command that composes no config: settings, flags, and what it takes without a key."""
    from gcl.config.compose import options_from

    options = command.load_options()
    own = {field.name for field in fields(options)}
    lists = {field.name for field in fields(options) if field.default_factory is list}
    arguments = _with_flags(arguments, own, files=command.bare in lists)
    settings = [argument for argument in arguments if not command.bare or SETTING.match(argument)]
    bare = [argument for argument in arguments if command.bare and not SETTING.match(argument)]
    given: dict[str, Any] = {}
    if command.bare and bare:
        given[command.bare] = bare if command.bare in lists else " ".join(bare)
    return options_from(options, settings, example=command.example, given=given)


def _with_flags(arguments: Sequence[str], own: Collection[str], *, files: bool) -> list[str]:
    """`--like shopify` and `--like=shopify`, as many write it, as the setting like=shopify. files: other arguments are
    files, not words of a search."""
    settings: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        key = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and key not in own and files:
            raise ConfigError(
                f"There is no option {flag!r}.{nearest(flag, [f'--{name}'.replace('_', '-') for name in own])}"
            )
        if not flag.startswith("--") or key not in own:
            settings.append(argument)
        else:
            settings.append(f"{key}={value if equals else next(remaining, '')}")
    return settings


# What belongs to other commands, and what somebody who writes it here may mean.
_MEANT = {
    "run": "To begin from a run's model: model.pretrained=run:{value}; to go on with that run: run_dir={value} "
    "train.resume=auto; to measure it: gcl evaluate run={value}.",
    "models": "Models are compared by gcl evaluate data=… models={value}; one is chosen with model=.",
    "name": "A run gets its name when it is trained.",
    "out": "A run is written to run_dir={value}.",
    "run_dir": "A run that is measured is named by run={value}; out= says where the figures go.",
}


def _refuse_others(command: Command, settings: Sequence[str]) -> None:
    """Raises ConfigError for a setting of a run that this command would ignore in silence."""
    from gcl.config.folder import choices_of

    given = dict(setting.lstrip("+").partition("=")[::2] for setting in settings)
    for key, value in given.items():
        if key in _MEANT and key not in command.settings and value != "null":
            hint = f" {_MEANT[key].format(value=value)}" if command.name in ("train", "evaluate") else ""
            raise ConfigError(f"gcl {command.name} has no {key}=.{hint}")
    own = {field.name for field in fields(command.load_options())}
    for key in given:
        if difflib.get_close_matches(key, own, n=1) and key not in _outermost():
            raise ConfigError(f"gcl {command.name} has no {key}=.{nearest(key, own | set(command.settings))}")
    name = given.get("data.name")
    if name in choices_of("data") and "data" not in given:
        raise ConfigError(f"data.name={name} would give another catalog this name: the catalog {name} is data={name}.")


def _outermost() -> set[str]:
    """The settings and groups of a run, without what is inside them."""
    from gcl.commands.registry import list_settings
    from gcl.config.folder import GROUPS

    return {*GROUPS, *(option.key.partition(".")[0] for option in list_settings())}


def _run_in_hydra(command: Command, arguments: list[str]) -> None:
    """Sweeps, launchers and Hydra's own information flags go through hydra.main."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from gcl.config.checks import check_choices
    from gcl.config.compose import complete, for_hydra_all, register, typed
    from gcl.config.folder import conf_folder
    from gcl.config.sweep import begin_sweep, run_folder

    check_choices(arguments)
    register()
    settings = [argument for argument in arguments if SETTING.match(argument.lstrip("+"))]
    _refuse_others(command, settings)
    others, config_dir = _without_config_dir([one for one in arguments if one not in settings], strict=False)
    several = any(one in ("-m", "--multirun") for one in others)
    sweep = begin_sweep(settings, config_dir) if several else None
    sys.argv = [sys.argv[0], *others, *(sweep.words if sweep else for_hydra_all(settings, config_dir))]

    @hydra.main(config_path=str(conf_folder().resolve()), config_name="config", version_base="1.3")
    def task(config: Any) -> Any:
        job = HydraConfig.get()
        complete(config, job)
        run = typed(config)
        if sweep is None:
            return _swept(command)(run)
        sweep.hide_secrets()
        run.run_dir = run.run_dir or str(run_folder(sweep, job))
        try:
            return _swept(command)(run)
        except (ValueError, KeyError, OSError) as error:  # which Hydra would show as a traceback
            if os.environ.get("GCL_TRACEBACK"):
                raise
            _stop(f"{run.run_dir}: {sentence_of(error)}")

    if sweep is not None:
        sweep.keep_private()
    try:
        task()
    finally:
        if sweep is not None:
            sweep.hide_secrets()
        if sweep is not None and command.after_sweep is not None:
            load(command.after_sweep)(sweep.folder)


def _swept(command: Command) -> Callable[..., Any]:
    if command.sweep is None:
        raise ConfigError(f"gcl {command.name} cannot be swept with --multirun.")
    return load(command.sweep)


def _without_config_dir(arguments: list[str], *, strict: bool = True) -> tuple[list[str], str | None]:
    """The settings, and the folder that `--config-dir X` or `--config-dir=X` names. strict: no other flag is known."""
    settings: list[str] = []
    folder = None
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            folder = value if equals else next(remaining, None)
            if not folder:
                raise ConfigError("--config-dir needs a folder, for example --config-dir my_conf")
        elif strict and argument.startswith("-") and not equals:
            raise ConfigError(f"There is no option {argument!r}. Settings are written key=value; see --help.")
        else:
            settings.append(argument)
    return settings, folder


def _stop(sentence: str, status: int = 2) -> None:
    from gcl.table import visible_lines

    print(f"gcl: {visible_lines(sentence)}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
