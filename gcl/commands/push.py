"""`gcl push out=… push=owner/name`: an exported folder to the Hugging Face Hub, again after an interruption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gcl.options import MISSING, path
from gcl.run.console import say, speak_plainly


@dataclass
class PushOptions:
    """Options of `gcl push`."""

    out: str = path(MISSING)
    """An exported folder."""
    push: str = MISSING
    """The repository, owner/name."""
    private: bool | None = None
    """Whether a newly created repository is private; null: the account's default."""
    revision: str | None = None
    """A branch; null: main."""
    pull_request: bool = False
    """Propose the files in a pull request instead of committing them."""


def run(options: PushOptions) -> str:
    speak_plainly()
    from gcl.exports.push import Target

    target = Target(options.push, options.private, options.revision, options.pull_request)
    address = target.upload(Path(options.out), report=say)
    say(f"Pushed to {address}")
    return address
