"""The process that loads itk once and forks a child for each registration: a crash or a hang is only the child's.

`python -m pipeline.registration.zygote` reads one JSON request a line (`folder`, `threads`, `timeout_s`) and answers
each with one line (`code`: the child's exit code, None when it had to be stopped). It ends when its input does, or when
its parent is gone.

Nothing may start a thread before the fork: a forked child has only the thread that forked it, and would wait for the
others for ever. Therefore the linear algebra libraries are held to one thread, and no ITK filter runs in this process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

#: How often an idle process looks whether its parent is still there; the end of its input usually says so at once.
IDLE_S = 5.0
#: What a child has written to its standard output and error, beside its request.
ERRORS = "errors.txt"
_PR_SET_PDEATHSIG = 1

Work = Callable[[Path], None]


def serve(work: Work) -> None:
    """Answer requests until the input ends.

    Args:
        work: what a child does with a request's folder.
    """
    parent = os.getppid()
    # Children and libraries that print must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    while _more_to_read(parent):
        line = sys.stdin.readline()
        if not line:
            return
        answers.write(json.dumps({"code": _run(work, json.loads(line))}) + "\n")


def _more_to_read(parent: int) -> bool:
    """Wait for the next line; False when the parent is gone."""
    while os.getppid() == parent:
        if select.select([sys.stdin], [], [], IDLE_S)[0]:
            return True
    return False


def _run(work: Work, request: dict[str, Any]) -> int | None:
    """Fork a child for a request and wait for its end.

    The child alone holds the writing end of a pipe, so that its end, however it comes, is the pipe's end.
    """
    ended, alive = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        _work(work, request)
    os.close(alive)
    readable = select.select([ended, sys.stdin], [], [], request["timeout_s"])[0]
    if ended not in readable:  # too long, or the parent has gone: it sends nothing before it has its answer
        os.kill(child, signal.SIGKILL)
    os.close(ended)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if ended in readable else None


def _work(work: Work, request: dict[str, Any]) -> NoReturn:
    """Be the child: do the work, and end without this process' clean-up, which is the parent's."""
    code = 1
    try:
        _end_with_parent()
        folder = Path(request["folder"])
        errors = os.open(folder / ERRORS, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.chdir(folder)
        # ITK reads it when it first asks how many threads to use: here, after the fork.
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(request["threads"])
        work(folder)
        code = 0
    except BaseException:  # noqa: BLE001 - the child must not return into the loop that forked it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_with_parent() -> None:
    """On Linux the kernel ends this process when its parent ends; elsewhere a child ends when its work is done."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Load what every registration needs, then serve."""
    from pipeline.registration import worker

    worker.load()
    serve(worker.main)


if __name__ == "__main__":
    main()
