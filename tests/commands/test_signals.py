"""SIGTERM and SIGHUP end a command once, and its end is left alone."""

import os
import signal
from contextlib import contextmanager, suppress

import pytest

from gcl.cli import _signals_stop

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")


def send(signum=signal.SIGTERM):
    os.kill(os.getpid(), signum)


def test_a_second_signal_does_not_interrupt_the_end():
    removed = []

    @contextmanager
    def begun(name):
        try:
            yield
        finally:
            send(signal.SIGHUP)
            with suppress(OSError):
                try:
                    raise OSError
                except OSError:
                    send()
                    raise
            removed.append(name)

    with pytest.raises(KeyboardInterrupt), _signals_stop(), begun("outer"):
        try:
            with begun("inner"):
                send()
        except ValueError:
            pass
    assert removed == ["inner", "outer"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)])
def test_where_the_first_signal_is_lost_the_second_counts(first, second):
    with pytest.raises(KeyboardInterrupt), _signals_stop():
        try:
            send(first)
        except KeyboardInterrupt:
            pass  # as C code that clears errors does
        send(second)
        pytest.fail("the second signal did nothing")
