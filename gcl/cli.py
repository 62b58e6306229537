"""The console script: `gcl <command> key=value …`. Imports nothing heavy before the words are understood."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMANDS = {
    "train": "fine-tune a model on a catalog, measure it before and after: gcl train data=my_catalog model=ecommerce-B",
    "evaluate": "measure runs and models: gcl evaluate run=outputs/…  |  gcl evaluate data=my_catalog model=siglip-B",
    "prepare": "check a catalog's tables and pictures and write its shards: gcl prepare data=my_catalog",
    "index": "index shards that came from elsewhere: gcl index shards='x/{000..127}.tar' out=x-index",
    "doctor": "say what is wrong with a catalog before training does: gcl doctor data=my_catalog all=true",
    "sweep-weights": "find field weights on the dev half, report on the test half: gcl sweep-weights run=outputs/…",
    "search": 'try a run on its products: gcl search run=outputs/… (a page) | gcl search run=outputs/… "red shoes"',
    "export": "write a run's model where others load it: gcl export run=outputs/… out=my_model",
    "push": "send an exported folder to the Hugging Face Hub: gcl push out=my_model push=owner/name",
}
_GROUPS = ("data", "model", "loss", "optim", "trainer", "logger", "callbacks", "evaluate", "experiment")
_HYDRA_FLAGS = ("--multirun", "-m", "--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")


def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _answer(words)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _stop(
            "Interrupted. What was finished is kept; run the same command again (training: with train.resume=auto).",
            130,
        )
    except (ValueError, KeyError, OSError) as error:
        if os.environ.get("GCL_TRACEBACK"):
            raise
        _stop(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))


def _answer(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview(), flush=True)
        return
    command = words.pop(0)
    if command not in COMMANDS:
        raise ValueError(f"There is no command {command!r}. {_suggest(command, COMMANDS)}")
    if "--help" in words or "-h" in words:
        print(_help(command), flush=True)
        return
    _run(command, words)


def _run(command: str, words: list[str]) -> None:
    if command == "search":
        from gcl.commands.search import search_words

        search_words(words)
        return
    if command == "export":
        from gcl.commands.export.command import export_words

        export_words(words)
        return
    if command == "push":
        from gcl.commands.push import push_words

        push_words(words)
        return
    if command == "index":
        from gcl.commands.index import index_words

        index_words(words)
        return
    from gcl.config.compose import compose, typed

    if any(word.split("=")[0] in _HYDRA_FLAGS for word in words):
        return _run_in_hydra(command, words)
    config_dir = _take_config_dir(words)
    if command == "evaluate":
        from gcl.commands.evaluate import evaluate_words

        evaluate_words(words, config_dir)
        return
    if command == "sweep-weights":
        from gcl.commands.sweep_weights import sweep_words

        sweep_words(words, config_dir)
        return
    if command == "prepare":
        from gcl.commands.prepare import prepare_words

        prepare_words(words, config_dir)
        return
    if command == "doctor":
        from gcl.commands.doctor.command import doctor_words

        doctor_words(words, config_dir)
        return
    config = typed(compose(words, config_dir=config_dir))
    _function(command)(config)


def _function(command: str, *, sweep: bool = False) -> Callable:
    if command == "train":
        from gcl.commands.train import train, train_for_sweep

        return train_for_sweep if sweep else train
    if command != "prepare":
        raise ValueError(f"gcl {command} cannot be swept with --multirun.")
    from gcl.commands.prepare import prepare_command

    return prepare_command


def _run_in_hydra(command: str, words: list[str]) -> None:
    """Sweeps, launchers and Hydra's own information flags go through hydra.main."""
    import hydra

    from gcl.config.compose import register, typed, with_catalogs
    from gcl.errors import conf_folder

    register()
    sys.argv = [sys.argv[0], *words]

    @hydra.main(config_path=str(conf_folder().resolve()), config_name="config", version_base="1.3")
    def task(config):
        _name_run(config)
        with_catalogs(config)
        return _function(command, sweep=True)(typed(config))

    task()


def _name_run(config) -> None:
    """The runs of one sweep share a process: each gets a folder of its own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    if job.mode is RunMode.MULTIRUN:
        begun = os.environ.setdefault("GCL_SWEEP_TIME", time.strftime("%Y-%m-%d_%H-%M-%S"))
        os.environ["GCL_RUN_TIME"] = f"{begun}-{job.job.num}"


def _take_config_dir(words: list[str]) -> str | None:
    """Removes `--config-dir X` or `--config-dir=X` from the words and returns X."""
    for place, word in enumerate(words):
        if word in ("--config-dir", "-cd"):
            if place + 1 == len(words):
                raise ValueError("--config-dir needs a folder: --config-dir my_conf")
            folder = words[place + 1]
            del words[place : place + 2]
            return folder
        if word.startswith("--config-dir="):
            del words[place]
            return word.partition("=")[2]
    unknown = next((word for word in words if word.startswith("-") and "=" not in word), None)
    if unknown:
        raise ValueError(f"There is no option {unknown!r}. Settings are written key=value; see --help.")
    return None


def _overview() -> str:
    lines = ["gcl: fine-tune a product-search model on your own catalog.", "", "Commands:"]
    lines += [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join([*lines, "", "gcl <command> --help lists what can be set. Settings are words: train.epochs=3"])


def _help(command: str) -> str:
    from gcl.errors import conf_folder

    lines = [f"gcl {command}: {COMMANDS[command]}", "", "Choices (key=choice):"]
    for group in _GROUPS:
        choices = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
        if choices:
            lines.append(f"  {group:<11}{', '.join(choices)}")
    lines += [
        "",
        "Every value can be set by its path: train.batch_size=512 data.document.title.weight=0.5",
        "A field is left out with ~data.document.brand",
        "--config-dir DIR   a folder of your own YAMLs, for example DIR/data/my_catalog.yaml",
        "--cfg job          print the composed config and stop",
        "--multirun         one run for every combination: seed=0,1,2",
    ]
    return "\n".join(lines)


def _suggest(word: str, known: Sequence[str] | dict) -> str:
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"There is: {', '.join(known)}."


def _stop(sentence: str, status: int = 2) -> None:
    print(f"gcl: {sentence}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    sys.exit(main([Path(sys.argv[0]).stem, *sys.argv[1:]]))
