"""Children: processes for what may crash, hang or eat memory, so that a broken file or image ends none of ours.

One process (`Server`) loads a function's libraries once and forks children that call it: a new child costs a fork. The
kernel itself ends a task that takes too long, even in compiled code. It guards against accidents, not against
attackers: what a child answers is trusted.

`multiprocessing`'s own fork server does not serve here: it is one a process, so header reading would load itk; its
children outlive a killed parent while they hang; a daemonic process, as dask's workers are, may not start them; and it
takes no environment, which has to hold linear algebra to one thread before the fork.

Nothing may start a thread before the fork: a forked child has only the thread that forked it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from itertools import islice
from multiprocessing.connection import Connection, Pipe
from typing import Any, NamedTuple, NoReturn

from pipeline.cases import Fault

#: What says in the environment how many threads linear algebra may use.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: How long the libraries may take to load; itk takes some 2 s.
START_S = 300
#: How often an idle server looks whether its parent is still there; the end of its socket usually says so at once.
_IDLE_S = 5.0
_OUT_OF_MEMORY = 77
_PR_SET_PDEATHSIG = 1


def name_of(function: Callable[..., Any]) -> str:
    """The name by which another process finds a function that stands at the top of a module."""
    return f"{function.__module__}:{function.__qualname__}"


class Server:
    """The process that forks children; started when it is needed, and again when it has died.

    Args:
        function: what the children call with each task, as `name_of` says it.
        load: called once before the first fork, without arguments; empty: the function's module is enough.
    """

    def __init__(self, function: str, load: str = "") -> None:
        self._command = [sys.executable, "-m", "pipeline.child", function, load]
        self._lock = threading.Lock()
        self._started: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def start(self) -> None:
        """Start loading, if that has not begun yet; returns at once."""
        with self._lock:
            self._running()

    def fork(self) -> tuple[Connection, Connection]:
        """A new child: the connection for its tasks; and the one on which its exit code comes, and an end is asked."""
        work, its_work = Pipe()
        status, its_status = Pipe()
        with its_work, its_status, self._lock, suppress(BrokenPipeError):  # one that has died sends no exit code
            socket.send_fds(self._running(), [b"f"], [its_work.fileno(), its_status.fileno()])
        return work, status

    def close(self) -> None:
        """End the process, and with it its children."""
        with self._lock:
            self._end()

    def _running(self) -> socket.socket:
        if self._started is None or self._started[0].poll() is not None:
            self._end()
            control, theirs = socket.socketpair()
            environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": os.pathsep.join(sys.path)}
            silent = subprocess.DEVNULL  # what libraries say of a file may hold the patient's data
            streams = {"stdin": theirs.fileno(), "stdout": silent, "stderr": silent}
            with theirs:
                process = subprocess.Popen(self._command, env=environment, **streams)  # type: ignore[call-overload]
            self._started = process, control
        return self._started[1]

    def _end(self) -> None:
        if self._started is not None:
            process, control = self._started
            control.close()
            process.kill()
            process.wait()
        self._started = None


class Children:
    """Children that call one function; a task that ends its child costs that task alone.

    Args:
        function: takes one task; stands at the top of a module. Or a server that lives longer than these children.
        workers: how many children there are; each is forked when it is first needed.
        memory_bytes: address space of each, its libraries included; None: no limit.
        timeout_s: what one task may take.
        chunk: how many tasks a child is given at once: small tasks cost less together.
        ahead: so many chunks a child may be done, or waiting, behind one that takes long; their answers are held.
    """

    def __init__(
        self,
        function: Callable[[Any], Any] | Server,
        workers: int = 1,
        memory_bytes: int | None = None,
        timeout_s: float = 60.0,
        chunk: int = 1,
        ahead: int = 2,
    ) -> None:
        server = function if isinstance(function, Server) else Server(name_of(function))
        self._own = None if server is function else server
        self._children = [_Child(server, (memory_bytes, timeout_s), self.fault) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="child")
        self._chunk, self._ahead = chunk, ahead * workers

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.stop()
        if self._own is not None:
            self._own.close()

    def map(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Call the function for every task.

        Args:
            tasks: what the function takes, picklable; taken from the iterable as the results are.

        Yields:
            For every task, in order: what the function returned; the exception that it raised, as a value; or a
            `Fault`: E_LIMIT when it took too much memory or time, E_CRASH when its process ended.

        Raises:
            ImportError: the function cannot be loaded.
        """
        rest = iter(tasks)
        ahead: deque[Future[list[Any]]] = deque()
        while chunk := list(islice(rest, self._chunk)):
            ahead.append(self._threads.submit(self._call, chunk))
            if len(ahead) > self._ahead:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()

    def fault(self, how: str) -> Fault:
        """What a death means: `time`, `memory`, or the name of a signal or exit code."""
        if how in ("time", "memory"):
            return Fault.of("E_LIMIT", f"Its process took more {how} than is allowed.")
        return Fault.of("E_CRASH", f"Its process ended ({how}).")

    def _call(self, tasks: list[Any]) -> list[Any]:
        child = self._idle.get()
        try:
            return child.answers(tasks)
        finally:
            self._idle.put(child)


class _Child:
    """One child process at a time; a new one follows one that has ended."""

    def __init__(self, server: Server, limits: tuple[int | None, float], fault: Callable[[str], Fault]) -> None:
        self._server, self._limits, self._fault = server, limits, fault
        self._process: tuple[Connection, Connection] | None = None
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
                work = self._running()
                work.send(tasks[len(answers) :])
                while len(answers) < len(tasks):
                    answers.append(work.recv())
                    self._answered += 1
            except (EOFError, OSError):
                first, how = self._answered == 0, self.stop()
                if first or how == "time":
                    answers.append(self._fault(how))
        return answers

    def close(self) -> None:
        """End the process, whatever it is doing, and start no other; a thread that waits for it goes on."""
        self._closed = True
        if self._process is not None:
            _let_go(self._process[1])

    def stop(self) -> str:
        """Let go of the process, which has ended or does so now, and say how it ended."""
        if self._process is None:
            return "no process"
        (work, status), self._process = self._process, None
        work.close()
        _let_go(status)
        with status, suppress(EOFError, OSError):
            return _how(status.recv())
        return "the process that starts it ended"

    def _running(self) -> Connection:
        if self._process is None:
            self._answered = 0
            self._process = work, _ = self._server.fork()
            if self._closed:
                self.close()
            work.send(self._limits)
            if problem := work.recv():
                raise ImportError(problem)
        return self._process[0]


def _let_go(status: Connection) -> None:
    with suppress(OSError):  # it has ended in the meantime
        status.send(None)


def _how(code: int) -> str:
    if code in (_OUT_OF_MEMORY, -signal.SIGALRM):
        return "memory" if code == _OUT_OF_MEMORY else "time"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


# ---- in the server and its children ----------------------------------------------------------------------------------


class _Forked(NamedTuple):
    """A child as its server sees it; it alone holds the other end of the pipe `alive`."""

    pid: int
    alive: int
    status: Connection

    def buried(self, readable: list[Any]) -> bool:
        """Tell the parent how the child ended, if it has; end it when the parent has let go of it."""
        if self.alive in readable:
            with suppress(OSError), self.status:  # nobody may be listening
                self.status.send(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
            os.close(self.alive)
            return True
        if self.status in readable:
            os.kill(self.pid, signal.SIGKILL)
        return False


def serve(function: str, load: str) -> None:
    """Be the server: load, then fork a child whenever one is asked for, until the parent is gone."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(1, 0)  # children must not hold it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what it ends
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(START_S)
    parent, call, problem = os.getppid(), None, ""
    try:
        call = _found(function)
        if load:
            _found(load)()
    except BaseException as error:  # noqa: BLE001 - raised again by the parent
        problem = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    children: list[_Forked] = []
    while os.getppid() == parent:
        watched: list[Any] = [control, *(item for child in children for item in (child.alive, child.status))]
        readable = select.select(watched, [], [], _IDLE_S)[0]
        children = [child for child in children if not child.buried(readable)]
        if control in readable:
            _, numbers, _, _ = socket.recv_fds(control, 1, 2)
            if not numbers:
                break
            children.append(_forked(numbers, call, problem, [control, *(child.status for child in children)]))
    for child in children:
        os.kill(child.pid, signal.SIGKILL)


def _found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _forked(numbers: list[int], call: Any, problem: str, others: list[Any]) -> _Forked:
    alive, held = os.pipe()
    work, status = (Connection(number) for number in numbers)
    pid = os.fork()
    if pid == 0:
        os.close(alive)
        for other in (*others, status):
            other.close()
        _be_child(work, call, problem)
    os.close(held)
    work.close()
    return _Forked(pid, alive, status)


def _be_child(work: Connection, call: Any, problem: str) -> NoReturn:
    """Answer the tasks that come in until the connection ends; then end without the server's clean-up."""
    code = 1
    try:
        if sys.platform == "linux":  # elsewhere a child ends with its task
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        memory_bytes, timeout_s = work.recv()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        work.send(problem)
        while True:
            for task in work.recv():
                signal.setitimer(signal.ITIMER_REAL, max(timeout_s, 1e-3))
                answer = _answer(call, task)
                signal.setitimer(signal.ITIMER_REAL, 0)
                work.send(answer)
    except (EOFError, OSError):  # the parent has let go
        code = 0
    except MemoryError:
        code = _OUT_OF_MEMORY
    finally:
        os._exit(code)


def _answer(call: Callable[[Any], Any], task: Any) -> Any:
    """What the function returns or raises; in its words alone where the error does not survive the way to the parent.

    Raises:
        MemoryError: when that is behind what it raises.
    """
    try:
        return call(task)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                raise MemoryError from error
            cause = cause.__cause__ or cause.__context__
        try:
            return pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - errors of any library
            return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    serve(*sys.argv[1:])
