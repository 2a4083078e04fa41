"""The children that register for this pipeline process (`pipeline.child`): a fresh one for each request."""

from __future__ import annotations

import atexit
import os
from functools import cache
from pathlib import Path

from pipeline.child import Children, Server
from pipeline.errors import CaseError

#: What a child has written to its standard output and error, beside its request.
ERRORS = "errors.txt"
ELASTIX = ("pipeline.registration.worker:serve", "pipeline.registration.worker:load")


class Registrar:
    """Runs requests in children of one process that has loaded its libraries.

    Args:
        function: called with a request (folder, threads), as `pipeline.child.name_of` says it.
        load: see `pipeline.child.Server`.
    """

    def __init__(self, function: str = ELASTIX[0], load: str = ELASTIX[1]) -> None:
        self._server = Server(function, load)
        self.start = self._server.start
        self.close = self._server.close

    def run(self, folder: Path, threads: int, timeout_s: float) -> None:
        """Let a child work on a request's folder, and wait for it.

        Raises:
            CaseError: E_CRASH when the child crashed, hung or failed; its last words are in the message.
        """
        try:
            with Children(self._server, timeout_s=timeout_s) as children:
                (answer,) = children.map([(folder, threads)])
        except Exception as error:
            raise CaseError("E_CRASH", f"Elastix' libraries cannot be loaded: {tail(str(error))}.") from error
        if answer is None:
            return
        if isinstance(answer, Exception):
            raise CaseError("E_CRASH", f"Elastix' process failed: {tail(str(answer))}.") from answer
        if answer.code == "E_LIMIT":
            raise CaseError("E_CRASH", f"Expected elastix to end within {timeout_s:g} s; it was stopped.")
        raise CaseError("E_CRASH", f"Elastix: {answer.message} Its last words: {_last_words(folder)}.")


@cache
def _registrar_of(_pid: int, function: str, load: str) -> Registrar:
    made = Registrar(function, load)
    atexit.register(made.close)
    return made


def registrar(function: str = ELASTIX[0], load: str = ELASTIX[1]) -> Registrar:
    """The one of this pipeline process for a function; a forked copy of the pipeline gets its own."""
    return _registrar_of(os.getpid(), function, load)


def move_in(folder: Path, threads: int) -> None:
    """In a child: work in the request's folder, where what libraries print goes too, with so many threads of ITK."""
    errors = os.open(folder / ERRORS, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.chdir(folder)
    # ITK reads it when it first asks how many threads to use: here, after the fork.
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)


def tail(text: str) -> str:
    """The last three lines of a text in one line."""
    return " / ".join(line.strip() for line in text.strip().splitlines()[-3:]) or "no message"


def _last_words(folder: Path) -> str:
    path = folder / ERRORS
    return tail(path.read_text(errors="replace")) if path.is_file() else "no message"
