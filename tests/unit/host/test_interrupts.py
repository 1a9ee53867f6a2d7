"""A signal that arrives while it is delayed takes effect at the release, and later ones at once."""

from __future__ import annotations

import signal
import threading

import pytest

from runner.host.interrupts import deferred_interrupts


def test_a_signal_is_delayed_until_the_release() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with deferred_interrupts() as release:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            release()
        assert signal.getsignal(signal.SIGINT) is handler
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_release_a_signal_is_delayed_until_the_end() -> None:
    reached = False

    def signalled() -> None:
        nonlocal reached
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        signalled()
    assert reached


def test_another_thread_does_not_touch_the_handlers() -> None:
    handlers = []

    def look() -> None:
        with deferred_interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]
