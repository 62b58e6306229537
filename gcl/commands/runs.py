"""`gcl runs`: one table over the runs below a folder, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcl.errors import ConfigError
from gcl.options import Choice
from gcl.retrieval.settings import Gate
from gcl.run.closing import CLOSED, passes
from gcl.run.console import say, speak_plainly
from gcl.run.listing import runs_below, runs_table


class Format(Choice):
    """How the table is written."""

    text = "text"
    csv = "csv"
    json = "json"
    markdown = "markdown"


@dataclass
class RunsOptions:
    """Options of `gcl runs`."""

    folder: str = "outputs"
    """The folder whose runs are listed, at any depth."""
    format: Format = Format.text
    """How the table is written: text, csv, json or markdown; csv and json have a column for each setting that differs
    and all digits."""


def run(options: RunsOptions) -> None:
    runs = runs_below(Path(options.folder))
    if not runs:
        raise ConfigError(f"There is no run below {options.folder}: gcl train leaves its runs in outputs/.")
    table = runs_table(runs, f"Runs below {options.folder}", wide=options.format in (Format.csv, Format.json))
    print(getattr(table, options.format.value)().rstrip("\n"), flush=True)


def end_sweep(folder: Path) -> None:
    """Prints the table of a sweep's runs. With `evaluate.gate` the exit status is 3 if none of them passes."""
    runs = runs_below(folder) if folder.is_dir() else []
    if not runs:
        return
    speak_plainly()
    say("\n" + runs_table(runs, f"Runs of the sweep {folder}", wide=False).text())
    gates = {str(one.settings.get("evaluate.gate", Gate.off)) for one in runs}
    if gates != {"off"} and not any(passes(Gate(gate), r.decision) for gate in gates for r in runs if r.decision):
        say(f"\nThe exit status is {CLOSED} (evaluate.gate={', '.join(sorted(gates))}): none of the runs passes.")
        raise SystemExit(CLOSED)
