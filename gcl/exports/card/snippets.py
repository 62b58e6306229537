"""Snippets of a card: each is run in a fresh offline process, and shown with the output it really had."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gcl.exports.formats.registry import Format
from gcl.exports.node import NODE, TRANSFORMERS_JS, node_package
from gcl.exports.verify.round_trip import RoundTripError, last_line, offline
from gcl.model.dual_encoder import DualEncoder
from gcl.schema import Schema
from gcl.table import visible

_LINES = 20  # of an output that are shown, at most


@dataclass(frozen=True)
class Executed:
    """A program and what it printed. language: python or javascript."""

    name: str
    code: str
    output: str
    language: str = "python"

    def markdown(self) -> list[str]:
        """A heading, the code and the output. A fence is longer than any in the output, which may show catalog data."""
        output = "\n".join(visible(line) for line in self.output.splitlines())
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", output)), default=0))
        code = [f"```{self.language}", self.code.rstrip(), "```"]
        return [f"### {self.name}", "", *code, "", "prints", "", fence, output, fence, ""]


def run_snippets(
    encoder: DualEncoder, folder: Path, formats: Sequence[Format], *, name: str, repo: str | None = None
) -> list[Executed]:
    """Every format's snippet, executed. The code names the model as its reader does: the folder's name, or owner/name.

    For a repository that is not there yet, the process finds the folder where the Hub's cache would have it.
    Raises RoundTripError for a snippet that fails.
    """
    with tempfile.TemporaryDirectory(prefix="gcl-snippets-") as scratch:
        place, variables = _place(Path(scratch), folder.resolve(), name, repo)
        codes = {format.name: format.snippet(encoder, str(folder.resolve())) for format in formats}
        if repo:
            codes = {format.name: format.snippet(encoder, repo) for format in formats}
        codes = {key: code.replace(str(folder.resolve()), place) for key, code in codes.items()}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            jobs = [
                pool.submit(execute, format.name, codes[format.name], Path(scratch), variables, format.language)
                for format in formats
            ]
            return [job.result() for job in jobs]


def execute(
    name: str, code: str, folder: Path, variables: Mapping[str, str] | None = None, language: str = "python"
) -> Executed:
    """Runs the code in this folder. Raises RoundTripError with the last line of its error."""
    program = [sys.executable, "-W", "ignore", "-c"] if language == "python" else [NODE, "--input-type=module", "-e"]
    done = subprocess.run(
        [*program, code], cwd=folder, env=offline(**(variables or {})), capture_output=True, text=True,
        encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        said = done.stderr
        if language != "python":  # node ends with a stack and its version
            said = "\n".join(line for line in said.splitlines() if "Error" in line) or said
        raise RoundTripError(f"The card's snippet for {name} fails: {last_line(said, done.returncode)}")
    lines = done.stdout.rstrip().splitlines()
    return Executed(name, code, "\n".join(lines[:_LINES] + (["…"] if len(lines) > _LINES else [])), language)


def _place(scratch: Path, folder: Path, name: str, repo: str | None) -> tuple[str, dict[str, str]]:
    if package := node_package(TRANSFORMERS_JS):  # modules of node look for it in folders alone
        (scratch / "node_modules").symlink_to(package.parents[1], target_is_directory=True)
    here = scratch / (repo or name)
    here.parent.mkdir(exist_ok=True)
    here.symlink_to(folder, target_is_directory=True)
    if repo is None:
        return name, {}
    kept, revision = scratch / "hub" / f"models--{repo.replace('/', '--')}", "0" * 40
    (kept / "snapshots").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(revision)
    (kept / "snapshots" / revision).symlink_to(folder, target_is_directory=True)
    return repo, {"HF_HUB_CACHE": str(scratch / "hub"), "HF_HOME": str(scratch / "home")}


def fuse_snippet(schema: Schema, width: int) -> str:
    """Python source that fuses one document's field vectors in NumPy."""
    weights = ", ".join(f'"{name}": {spec.weight:g}' for name, spec in schema.document.items())
    first, *_ = schema.document
    # Code of fields that are sets, and a line that runs it.
    sets = [name for name, spec in schema.document.items() if spec.is_set]
    several = f'''

def fuse_images(vectors):
    """Unit vectors of a product's images -> the vector of its field ({", ".join(sets)})."""
    mean = sum(vectors) / len(vectors)
    return mean / np.linalg.norm(mean)
'''
    used = "".join(f'\nfields["{name}"] = fuse_images([fields["{name}"]])  # of a single image' for name in sets)
    return f"""\
import numpy as np

weights = {{{weights}}}  # of a product's fields


def fuse(vectors):
    \"\"\"Unit vectors by field, of the fields that a product has -> its vector.\"\"\"
    total = sum(weights[name] for name in vectors)
    mean = sum(weights[name] / total * vector for name, vector in vectors.items())
    return mean / np.linalg.norm(mean)
{several if sets else ""}

# yours: vectors of the snippets above, each divided by its length
random = np.random.default_rng(0)
fields = {{name: random.normal(size={width}) for name in weights}}
fields = {{name: vector / np.linalg.norm(vector) for name, vector in fields.items()}}{used if sets else ""}
product = fuse(fields)
print(product.shape, round(float(np.linalg.norm(product)), 6))
print({{name: round(float(product @ vector), 3) for name, vector in fields.items()}})
alone = fuse({{"{first}": fields["{first}"]}})  # a product with one field is that field's vector
print(round(float(alone @ fields["{first}"]), 6))
"""
