"""What a command tells the person at the terminal: plain sentences, from the first process only."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings

from gcl.distributed.launched import launched_rank
from gcl.files import progress
from gcl.table import visible_lines

logger = logging.getLogger("gcl")


def say(text: str = "") -> None:
    logger.info(text)


def terminal_width() -> int | None:
    """Of the terminal that messages go to; None where they go elsewhere."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None


class _Shown(logging.Formatter):
    """A catalog's texts in a message are shown, not obeyed by the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


class _Above(logging.StreamHandler):
    """A message appears above the lines that show progress."""

    def emit(self, record: logging.LogRecord) -> None:
        with progress.above_progress():
            super().emit(record)


def speak_plainly() -> None:
    """Messages go to stdout bare, and lines about progress to stderr; only rank 0 speaks."""
    for speaker, stream in ((logger, sys.stdout), (progress.logger, sys.stderr)):
        handler = _Above(stream)
        handler.setFormatter(_Shown("%(message)s"))
        speaker.handlers = [handler]
        speaker.propagate = False
    logger.setLevel(logging.INFO if launched_rank() == 0 else logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def quiet_libraries() -> None:
    """Keeps third-party chatter to errors; to be called after their import, which resets their levels."""
    for name in (
        "lightning.pytorch",
        "lightning.pytorch.utilities.rank_zero",
        "lightning.fabric",
        "httpx",
        "timm",
        "open_clip",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Choices of ours that Lightning advises against on every run: few workers, one long epoch, no sampler of its own,
    # frozen parts in evaluation mode.
    for message in (".*does not have many workers.*", ".*smaller than the logging interval.*", ".*not resumable.*",
                    ".*is supported for historical reasons.*", ".*exists and is not empty.*", ".*treespec.*",
                    ".*in eval mode at the start of training.*",
                    ".*sync_dist=True.*"):  # every rank measures the same  # fmt: skip
        warnings.filterwarnings("ignore", message=message)
