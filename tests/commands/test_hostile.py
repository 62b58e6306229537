"""No text of a catalog acts on the terminal it is shown in."""

import logging
import re

import pytest

from gcl.errors import ConfigError
from gcl.run.console import logger, say, speak_plainly
from helpers.hostile import EVERYTHING

ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]")


@pytest.mark.parametrize("text", EVERYTHING, ids=ascii)
def test_messages_and_errors_are_shown_and_not_obeyed(capsys, monkeypatch, text):
    from gcl.cli import main

    handlers = logger.handlers
    speak_plainly()
    say(f"first line\n{text}")
    logger.handlers = handlers
    monkeypatch.setattr("gcl.cli._answer", lambda _: (_ for _ in ()).throw(ConfigError(f"bad: {text}")))
    with pytest.raises(SystemExit):
        main([])
    said = capsys.readouterr()
    assert not ACTS.search(said.out) and not ACTS.search(said.err) and said.out.startswith("first line\n")
    assert logging.getLogger("gcl") is logger
