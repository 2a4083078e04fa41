"""The one process that registers for this pipeline process: started when needed, started again when it has died."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from pipeline.errors import CaseError
from pipeline.registration.zygote import ERRORS

COMMAND = (sys.executable, "-m", "pipeline.registration.zygote")
#: How much longer than the child may take is waited for the answer: loading itk takes some 10 s of it.
GRACE_S = 60.0
#: One thread for each library that would otherwise start its own before the fork.
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Zygote:
    """Runs requests in forked children of one process that has loaded itk.

    Args:
        command: the program that serves the requests (`pipeline.registration.zygote.serve`).
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._messages: IO[str] | None = None

    def start(self) -> None:
        """Start loading, if that has not begun yet; returns at once."""
        with self._lock:
            self._running()

    def run(self, folder: Path, threads: int, timeout_s: float) -> None:
        """Let a child work on a request's folder, and wait for it.

        Raises:
            CaseError: E_CRASH when the child crashed, hung or failed; its last words are in the message.
        """
        request = {"folder": str(folder), "threads": threads, "timeout_s": timeout_s}
        with self._lock:
            answer = self._ask(request)
        if answer["code"] is None:
            raise CaseError("E_CRASH", f"Expected elastix to end within {timeout_s:g} s; it was stopped.")
        if answer["code"] != 0:
            raise CaseError("E_CRASH", f"Elastix' process ended with code {answer['code']}: {_last_words(folder)}.")

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):  # it has ended: that is told below
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            if select.select([process.stdout], [], [], request["timeout_s"] + GRACE_S)[0]:
                line = process.stdout.readline()
                if line:
                    return dict(json.loads(line))
        raise CaseError("E_CRASH", f"The process that starts elastix ended or hung: {self._end()}.")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}
            pipe = subprocess.PIPE
            # A pipe for its messages that nobody empties would stop it one day; a file does not fill.
            self._messages = tempfile.TemporaryFile("w+", prefix="tandem-", errors="replace")  # noqa: SIM115 - kept open
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, stderr=self._messages, env=environment, text=True
            )
        return self._process

    def _end(self) -> str:
        """End the process, if there is one; its last words."""
        process, messages = self._process, self._messages
        self._process = self._messages = None
        if process is None or messages is None:
            return "no message"
        process.kill()
        process.communicate()
        messages.seek(0)
        words = tail(messages.read())
        messages.close()
        return words


def zygote(command: tuple[str, ...] = COMMAND) -> Zygote:
    """The process of this pipeline process for a command; a forked copy of the pipeline gets its own."""
    return _zygote_of(os.getpid(), command)


@cache
def _zygote_of(_pid: int, command: tuple[str, ...]) -> Zygote:
    made = Zygote(command)
    atexit.register(made.close)
    return made


def tail(text: str, lines: int = 3) -> str:
    """The last lines of a text in one line."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:]) or "no message"


def _last_words(folder: Path) -> str:
    path = folder / ERRORS
    return tail(path.read_text(errors="replace")) if path.is_file() else "no message"
