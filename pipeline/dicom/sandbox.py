"""Call what may crash, hang or eat memory in processes of their own, so that a broken file ends none of ours.

It guards against accidents, not against attackers: what a worker answers is trusted.
"""

from __future__ import annotations

import os
import pickle
import queue
import resource
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from itertools import islice
from typing import IO, Any

from pipeline.cases import Fault
from pipeline.errors import REMEDIES

#: What a worker may take: address space, its libraries included (about 0.5 GB with pydicom and numpy); and time a task.
MEMORY_BYTES, TIMEOUT_S = 4 * 2**30, 60.0

_START_S = 120
_OUT_OF_MEMORY = 77
_LENGTH = struct.Struct("<Q")
_CRASH_REMEDY = "Export the file again; reading it ends the process that reads it."


class Sandbox:
    """Workers that call one function; a task that ends its worker costs that task alone.

    Args:
        function: takes one task; stands at the top of a module that the workers can import.
        workers: how many processes there are; each is started when it is first needed.
        memory_bytes: address space of each.
        timeout_s: what one task may take.
        chunk: how many tasks a worker is given at once: small tasks cost less together.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        workers: int = 1,
        memory_bytes: int = MEMORY_BYTES,
        timeout_s: float = TIMEOUT_S,
        chunk: int = 1,
    ) -> None:
        name = f"{function.__module__}:{function.__qualname__}"
        command = [sys.executable, "-m", "pipeline.dicom.sandbox", name, str(memory_bytes), str(timeout_s)]
        self._workers = [_Worker(command) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self._chunk = chunk

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Call the function for every task.

        Args:
            tasks: what the function takes, picklable; taken from the iterable as the results are.

        Yields:
            For every task, in order: what the function returned; the exception that it raised, as a value; or a
            `Fault`: E_LIMIT when it took too much memory or time, E_CRASH when its process ended.
        """
        rest = iter(tasks)
        ahead: deque[Future[list[Any]]] = deque()
        while chunk := list(islice(rest, self._chunk)):
            ahead.append(self._threads.submit(self._call, chunk))
            if len(ahead) > 2 * len(self._workers):
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def _call(self, tasks: list[Any]) -> list[Any]:
        worker = self._idle.get()
        try:
            return worker.answers(tasks)
        finally:
            self._idle.put(worker)


class _EndedError(Exception):
    """The process of a worker has ended."""


class _Worker:
    """One child process at a time; a new one follows one that has ended."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._answered = 0
        self._closed = False

    def answers(self, tasks: list[Any]) -> list[Any]:
        """One answer for each task.

        The first task without an answer is the one that ended the process. It is tried once more in a new one, as
        the tasks before it may have used up the memory; not so when it ran out of time.
        """
        answers: list[Any] = []
        while len(answers) < len(tasks) and not self._closed:
            try:
                _send(self._pipes()[0], tasks[len(answers) :])
                while len(answers) < len(tasks):
                    answers.append(_receive(self._pipes()[1]))
                    self._answered += 1
            except (_EndedError, BrokenPipeError):
                code, first = self.stop(), self._answered == 0
                if first or code == -signal.SIGALRM:
                    answers.append(_why(code))
        return answers

    def close(self) -> None:
        """End the process, whatever it is doing, and start no other; a thread that waits for it goes on."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> int:
        """Let go of the process, which has ended or does so now, and say how it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return process.wait()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._start()
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise _EndedError
        return self._process.stdin, self._process.stdout

    def _start(self) -> None:
        quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        self._answered = 0
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries say of a file may hold the patient's data
            env={**os.environ, **quiet},
            bufsize=0,
        )
        if self._closed:
            self._process.kill()
        error = _receive(self._pipes()[1])
        if error is not None:
            raise error


def _why(code: int) -> Fault:
    if code == -signal.SIGALRM:
        return Fault("E_LIMIT", "Reading it takes more time than is allowed.", REMEDIES["E_LIMIT"])
    if code == _OUT_OF_MEMORY:
        return Fault("E_LIMIT", "Reading it takes more memory than is allowed.", REMEDIES["E_LIMIT"])
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Fault("E_CRASH", f"Reading it crashed the reader ({how}).", _CRASH_REMEDY)


def _send(pipe: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    for part in (_LENGTH.pack(len(data)), data):
        view = memoryview(part)
        while view:
            view = view[pipe.write(view) :]


def _receive(pipe: IO[bytes]) -> Any:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = pipe.readinto(view)  # type: ignore[attr-defined]  # raw files have it
        if not count:
            raise _EndedError
        view = view[count:]
    return data


def main(name: str, memory_bytes: int, timeout_s: float) -> None:
    """What a worker does: answer the tasks that come in, until the pipe is closed.

    The kernel itself ends a task that takes too long: even where it hangs in compiled code, and when the parent has
    died in the meantime.
    """
    stdin, stdout = (os.fdopen(os.dup(number), mode, buffering=0) for number, mode in ((0, "rb"), (1, "wb")))
    os.dup2(2, 1)  # what libraries print must not get between the answers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_START_S)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - raised again by the parent
        _send(stdout, _portable(error))
        return
    _send(stdout, None)
    signal.alarm(0)
    while True:
        for task in _receive(stdin):
            signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-3))
            answer = _answer(function, task)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(stdout, answer)


def _answer(function: Callable[[Any], Any], task: Any) -> Any:
    try:
        return function(task)
    except Exception as error:  # noqa: BLE001 - the parent decides what it means
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                os._exit(_OUT_OF_MEMORY)
            cause = cause.__cause__ or cause.__context__
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """The error itself where it survives the way to the parent, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - errors of any library
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    except (_EndedError, BrokenPipeError):
        os._exit(0)  # the parent has closed the pipes
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)
