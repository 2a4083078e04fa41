"""Ctrl-C and SIGTERM end a command within `GRACE_S`, with its children, whatever it is busy with.

Each raises `Stopped` in the main thread, so that everything that was opened is closed: workers end before the lock of
the run folder is let go. What does not end by then (a library that computes without looking up, a worker that hangs) is
killed by a thread that the system wakes: nothing counts as done without its record, so a kill costs the case in hand.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

#: How long a command may take to close what it has opened.
GRACE_S = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Exit codes of a program that was stopped.
CODES = tuple(128 + number for number in _SIGNALS)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(KeyboardInterrupt):
    """A command was asked to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def code_of(stop: KeyboardInterrupt) -> int:
    """The exit code, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def sentence(code: int) -> str:
    """What the person reads who has stopped a command."""
    name = _NAMES[signal.Signals(code - 128)]
    return f"Exit code {code}: stopped by {name}; what is done is kept, and the same command goes on from there."


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C raise `Stopped`; one that the shell has told us to ignore stays ignored.

    For programs, not for libraries: what does not end in time is killed. Outside the main thread it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, waking = socket.socketpair()
    waking.setblocking(False)
    asked: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        asked.append(number)
        if len(asked) == 1:  # a second one must not break the closing; the thread hears it
            raise Stopped(number)

    heard = [number for number in _SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, stop) for number in heard}
    woken = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours,), name="stopping", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        if not asked:  # else a second signal would break what ends the program
            for number, handler in before.items():
                signal.signal(number, handler)
        waking.close()


def _watch(ours: socket.socket) -> None:
    """Once a signal has come, give the main thread its time; when that is over, or at a second one, end the process."""
    with ours:
        number = _next_signal(ours)
        if not number:
            return
        deadline = time.monotonic() + GRACE_S
        ours.settimeout(GRACE_S)
        with suppress(TimeoutError):
            if not _next_signal(ours):  # the block was left: what remains is the end of the program
                time.sleep(max(0.0, deadline - time.monotonic()))
    os.write(2, f"{sentence(128 + number)}\n".encode())
    leave(128 + number)


def _next_signal(ours: socket.socket) -> int:
    """The number of the next of our signals; 0 when the block is left."""
    while found := ours.recv(1):
        if found[0] in _SIGNALS:
            return found[0]
    return 0


def leave(code: int) -> NoReturn:
    """End a program that was stopped, at once: its children, and itself without what libraries do at its end."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(code)
