"""`gcl push out=… push=owner/name`: an exported folder to the Hugging Face Hub, again after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcl.config.compose import options_from
from gcl.run.console import say, speak_plainly


@dataclass
class PushOptions:
    """out: an exported folder. push: the repository, owner/name.

    private: of a repository that is made. revision: a branch. pull_request: propose the files instead of committing.
    """

    out: str = "???"
    push: str = "???"
    private: bool | None = None
    revision: str | None = None
    pull_request: bool = False


def push_words(words: Sequence[str]) -> str:
    speak_plainly()
    options = options_from(PushOptions, words, command="gcl push out=my_model push=owner/name")

    from gcl.export.push import Target

    target = Target(options.push, options.private, options.revision, options.pull_request)
    address = target.upload(Path(options.out), report=say)
    say(f"Pushed to {address}")
    return address
