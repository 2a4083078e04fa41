"""`python -m MODULE …` in a process that need not load torch and MONAI first, as it is forked from one that has.

Loading them takes ten seconds of a processor, most of what a short run takes. All else is as in a process that starts
from nothing: its arguments, environment, folder and streams, what the program's own modules do while they are loaded,
its hook for the last error, what it does at its end, and its exit code. Of each kind of process some tests still start
one from nothing: `tests.whole_run`, test_kill.py and test_bad_input.py, test_run.py and test_wrong_input.py of the
bundles, and the trainings of test_fuse.py and tests/segmentation/test_training.py.
"""

from __future__ import annotations

import atexit
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.child import Children, Server, name_of
from pipeline.dicom.sandbox import Sandbox
from pipeline.shipped import shipped

TIMEOUT_S = 600.0


def run(
    module: str, *arguments: str | Path, env: Mapping[str, str] | None = None, given: str = ""
) -> CompletedProcess[str]:
    """Run a module as a program, in the folder of the bundles; `given` is what it reads from its standard input."""
    words = [module, *map(str, arguments)]
    with TemporaryDirectory() as place, Children(_server(), timeout_s=TIMEOUT_S) as children:
        (Path(place) / "0").write_text(given)
        (code,) = children.map([(place, words, dict(os.environ if env is None else env))])
        out, err = ((Path(place) / name).read_text() for name in ("1", "2"))
    assert isinstance(code, int), code
    return CompletedProcess(words, code, out, err)


@contextmanager
def kept_sandboxes() -> Iterator[dict[tuple[str, Path], Server]]:
    """Within the block, what reads foreign files is loaded once, whatever number of sandboxes there are."""
    servers: dict[tuple[str, Path], Server] = {}
    begin = Sandbox.__init__

    def begun(box: Sandbox, function: Callable[[Any], Any], *limits: Any, **more: Any) -> None:
        name = name_of(function)
        begin(box, servers.setdefault((name, Path.cwd()), Server(name)), *limits, **more)  # a task may be a path

    Sandbox.__init__ = begun  # type: ignore[method-assign]
    try:
        yield servers
    finally:
        Sandbox.__init__ = begin  # type: ignore[method-assign]
        for server in servers.values():
            server.close()


@cache
def _server() -> Server:
    made = Server("tests.warm:_program", "tests.warm:_load")
    atexit.register(made.close)
    return made


def _load() -> None:
    """Other people's packages alone: ours are loaded as the program asks for them."""
    for name in ("monai.bundle", "monai.engines", "monai.transforms", "matplotlib.figure", "h5py", "rich.progress"):
        __import__(name)


def _program(task: tuple[str, list[str], dict[str, str]]) -> int:
    """In the child: be the program, and say its exit code."""
    place, words, environment = task
    os.chdir(shipped())
    os.environ.clear()
    os.environ.update(environment)
    for stream, mode in enumerate((os.O_RDONLY, os.O_CREAT | os.O_WRONLY, os.O_CREAT | os.O_WRONLY)):
        os.dup2(os.open(Path(place) / str(stream), mode), stream)
    sys.argv = words
    try:
        code = _ended_by()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _ended_by() -> int:
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return _code(end)
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as end:
            return _code(end)
        return 1
    return 0


def _code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    sys.stderr.write(f"{end.code}\n")
    return 1
