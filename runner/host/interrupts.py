"""Delay Ctrl-C and SIGTERM while a subprocess is started, so that the program can always stop it."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Delay the signals that end the program; yield a function that raises the delayed signals.

    Calling that function, or leaving the context, ends the delay. In other threads than the main one, this
    does nothing, because Python handles signals in the main thread.
    """
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def release() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()
        while received:
            signal.raise_signal(received.pop(0))

    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            before[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield release
    finally:
        release()
