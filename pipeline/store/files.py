"""Files that are either wholly there or not there at all: hashes, atomic writes, the lock of a run, walks of trees."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO

from pipeline.errors import DISK_IS_FULL, CaseError, PipelineError, UsageError

TEMPORARY_PREFIX = ".tmp-"
#: What lies in a run folder before any work is done.
BEFORE_WORK = (".lock", ".lock-owner", ".key", "run.json", "log.jsonl", "log.old.jsonl")
#: A disk without room for so much counts as full once something could not be written.
ROOM_BYTES = 1 << 20
#: The errors behind which a full disk may stand.
_OF_FULL_DISKS = ("E_VERIFY", "E_CRASH", "E_REGISTER")
LINK = "a link to a folder that is read elsewhere"


def open_file(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: when it is none, but a pipe, a socket or a device: reading one can wait for ever.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.open("rb")


def require_given(path: Path, what: str) -> None:
    """Refuse a file that a person has named as `what` and that is not there, is none, or cannot be opened.

    Raises:
        UsageError: E_INPUT, E_UNREADABLE.
    """
    try:
        open_file(path).close()
    except OSError as error:
        absent = {errno.ENOENT: "does not exist", errno.ENOTDIR: "does not exist", errno.EINVAL: "is not a file"}
        reason = absent.get(error.errno or 0) or f"cannot be opened ({error.strerror})"
        code = "E_INPUT" if error.errno in absent else "E_UNREADABLE"
        raise UsageError(code, f"Expected {what}, but {path} {reason}.") from error


def sha256_file(path: Path) -> str:
    """Hash of a file's bytes, hexadecimal."""
    with open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[Path], object], check: Callable[[Path], None] | None = None) -> str:
    """Write a file under a temporary name, flush it to the disk, check it, and only then give it its name.

    Args:
        path: the file to make; a former one is replaced.
        write: writes the content to the path it is given (the suffix is that of `path`).
        check: reads the flushed file again and raises if it is not what was meant.

    Returns:
        The file's sha256.

    Raises:
        CaseError: E_DISK when the disk is full or a quota is reached.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with full_disk_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            flush(temporary)
            if check is not None:
                check(temporary)
            digest = sha256_file(temporary)
            temporary.replace(path)
            flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return digest


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Within the block, whatever goes wrong with a file because its disk is full is E_DISK.

    Python says why a file cannot be written; ITK, HDF5, NumPy, torch and a process that has died do not.

    Raises:
        CaseError: E_DISK.
    """
    try:
        yield
    except Exception as error:
        known = error.errno if isinstance(error, OSError) else None
        other = isinstance(error, PipelineError) and error.code not in _OF_FULL_DISKS
        hidden = known is None and not other and path.parent.is_dir()
        if known in DISK_IS_FULL or (hidden and shutil.disk_usage(path.parent).free < ROOM_BYTES):
            raise CaseError("E_DISK", f"Expected room to write {path}, but its disk is full.") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8. A file's name need not be text: a byte of it that is none is written as an escape."""
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def save_text(path: Path, text: str) -> None:
    """Write a text as `write_text` does, wholly or not at all; raises as `write_atomic` does."""
    write_atomic(path, lambda temporary: write_text(temporary, text))


def walk(root: Path, apart: Path | None = None) -> Iterator[Path]:
    """Every entry below a folder, in a stable order. Folders that are links are entered, each folder once.

    A folder that could not be opened, or is a link to one that is read elsewhere or lies above it, is given as an
    entry itself: `require_file` says why.

    Args:
        root: the folder.
        apart: an output folder: no link may lead into it, nor above it.

    Raises:
        UsageError: E_EMPTY when the folder does not exist or cannot be opened, E_OUT.
    """
    if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
        raise UsageError("E_EMPTY", f"Expected a folder that can be read, got {root}.")
    waiting, known, closed = [root], set[tuple[int, int]](), list[Path]()
    for top in waiting:
        if top != root and apart is not None:
            _require_link_apart(top, apart)
        for name, folders, files in os.walk(top, onerror=lambda error: closed.append(Path(error.filename))):
            folder = Path(name)
            try:
                entered = _is_known(folder, known)
            except OSError:  # it is gone since it was listed
                closed.append(folder)
                folders.clear()
                continue
            if entered:
                folders.clear()
                yield folder
                continue
            links = [folder / name for name in sorted(folders) if (folder / name).is_symlink()]
            waiting += (link for link in links if not _is_loop(link))
            folders[:] = sorted({*folders} - {link.name for link in links})
            yield from (folder / name for name in sorted(files))
            yield from filter(_is_loop, links)
    yield from closed


def _is_known(folder: Path, known: set[tuple[int, int]]) -> bool:
    """Whether a folder was entered before, which it is now."""
    state = folder.stat()
    size, identity = len(known), (state.st_dev, state.st_ino)
    known.add(identity)
    return len(known) == size


def _is_loop(link: Path) -> bool:
    """Whether a link leads to a folder in which it lies itself."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _require_link_apart(link: Path, output_dir: Path) -> None:
    target, out = link.resolve(), output_dir.resolve()
    if out.is_relative_to(target) or target.is_relative_to(out):
        raise UsageError("E_OUT", f"The output folder {output_dir} lies in or above {link}, a link of the input.")


def require_file(path: Path) -> str:
    """Look at an entry of a tree before it is opened: a pipe would never end.

    Returns:
        Why it holds no data, in a few words; empty for a file.

    Raises:
        OSError: it, or the folder that it is, cannot be opened.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        with os.scandir(path):
            return LINK
    if not stat.S_ISREG(mode):
        return "a pipe, a socket or a device"
    return "a companion file of macOS" if path.name.startswith("._") and _is_companion(path) else ""


def _is_companion(path: Path) -> bool:
    """Whether a file `._NAME` is what macOS leaves beside NAME on foreign disks; one that is cut counts as such, too.

    Source: RFC 1740, appendix A (the magic numbers of AppleDouble and AppleSingle).
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    return len(start) < 4 or start in (b"\0\x05\x16\x07", b"\0\x05\x16\0")


def require_apart(output_dir: Path, dataset_dir: Path) -> None:
    """Refuse a run folder inside the input folder, which is never written to.

    Raises:
        UsageError: E_OUT.
    """
    if output_dir.resolve().is_relative_to(dataset_dir.resolve()):
        raise UsageError("E_OUT", f"The output folder {output_dir} lies in the input folder.")


def replaced(written: Iterable[Path], inputs: Iterable[Path]) -> Path | None:
    """The first input whose place one of the files that are to be written would take; None where none would."""
    places = {path.resolve() for path in written}
    return next((path for path in inputs if path.resolve() in places), None)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed run has left in a folder."""
    if folder.is_dir():
        for stray in folder.glob(f"{TEMPORARY_PREFIX}*"):
            stray.unlink(missing_ok=True) if not stray.is_dir() else shutil.rmtree(stray)


def writable_folder(folder: Path) -> Path:
    """Create the folder if needed and prove that it can be written to.

    Raises:
        UsageError: E_OUT; also for a path that is not UTF-8 text, with which ITK ends the process; E_DISK when its
            disk is full.
    """
    if not _is_text(folder):
        raise UsageError("E_OUT", f"Expected an output folder whose path is UTF-8 text, got {folder}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        if error.errno in DISK_IS_FULL:
            raise UsageError("E_DISK", f"Expected room to write into {folder}, but its disk is full.") from error
        raise UsageError("E_OUT", f"The output folder {folder} cannot be written to ({error.strerror}).") from error
    return folder


def _is_text(path: Path) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in str(path))


@contextmanager
def left_as_found(folder: Path, *own: str) -> Iterator[None]:
    """Within the block, a command that cannot start takes away the folder that it has made.

    One with anything else in it than `BEFORE_WORK`, and what the patterns of `own` name, stays as it is.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    new = bool(absent) or (folder.is_dir() and not any(folder.iterdir()))
    try:
        yield
    except PipelineError as error:
        made = list(folder.iterdir()) if new and folder.is_dir() and error.code != "E_BUSY" else []
        if all(any(path.match(pattern) for pattern in (*BEFORE_WORK, *own)) for path in made):
            for path in made:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            with suppress(OSError):  # another process has put something there
                for path in absent:
                    path.rmdir()
        raise


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for one process. The kernel lets go of it when the process ends, however it ends.

    A command that cannot start leaves none behind (`left_as_found`).

    Raises:
        UsageError: E_BUSY when another run holds it; E_OUT when the folder cannot be written to.
    """
    with left_as_found(folder), ExitStack() as stack:
        writable_folder(folder)
        stack.enter_context(full_disk_named(folder / ".lock"))
        stream = stack.enter_context((folder / ".lock").open("a+"))
        if not (_held(stream, stack, folder / ".lock-owner") or _held_soon(stream, stack, folder / ".lock-owner")):
            raise UsageError("E_BUSY", f"Another run is using the output folder {folder}.")
        sweep(folder)
        stack.callback(_name_run, stream, "")
        _name_run(stream, uuid.uuid4().hex)
        yield


def _name_run(stream: IO[str], name: str) -> None:
    """Leave a run's name in the lock that it holds; none when it ends."""
    stream.truncate(0)
    stream.write(name)
    stream.flush()


def run_of(folder: Path) -> str:
    """The name of the run that holds a folder, or held it when it was killed; empty where none does."""
    try:
        return (folder / ".lock").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def is_held(folder: Path) -> bool:
    """Whether a run holds a folder now. Nothing is written; a run that starts at this moment tries again."""
    try:
        stream = (folder / ".lock").open("r")
    except OSError:
        return False
    with stream:
        free = _locks(stream, fcntl.LOCK_SH)
    return (folder / ".lock-owner").exists() if free is None else not free


def _held(stream: IO[str], stack: ExitStack, owner: Path) -> bool:
    """Whether this process now holds a lock, by what the disk knows: flock, or a record lock, or a file of its own.

    Some Lustre and NFS know the second alone, some disks neither.
    """
    locked = _locks(stream, fcntl.LOCK_EX)
    return _claimed(owner, stack) if locked is None else locked


def _locks(stream: IO[str], how: int) -> bool | None:
    """Whether a file can be locked so at once; None where the disk knows no such thing."""
    for lock in (fcntl.flock, fcntl.lockf):
        try:
            lock(stream, how | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
        else:
            return True
    return None


def _held_soon(stream: IO[str], stack: ExitStack, owner: Path) -> bool:
    """The same a moment later: who looks whether a run goes on (`is_held`) holds the lock for microseconds."""
    time.sleep(0.05)
    return _held(stream, stack, owner)


def _claimed(owner: Path, stack: ExitStack) -> bool:
    """Whether the file that names the owner of a lock is this process's; one of a process that has ended is not kept.

    Raises:
        UsageError: E_BUSY for a process of another machine, of which nothing is known.
    """
    host, me = socket.gethostname(), str(os.getpid())
    for _ in range(2):
        try:
            owner.touch(exist_ok=False)
        except FileExistsError:
            where, _, process = owner.read_text(encoding="utf-8").partition("\n")
            if where != host:
                what = f"A run on {where or 'a machine yet unnamed'} is using the output folder."
                raise UsageError("E_BUSY", what, f"Wait for it to end; delete {owner} if it has.") from None
            if not process.isdigit() or _is_alive(int(process)):
                return False
            owner.unlink(missing_ok=True)
        else:
            stack.callback(owner.unlink, missing_ok=True)
            owner.write_text(f"{host}\n{me}", encoding="utf-8")  # on a full disk it is removed again
            return True
    return False


def _is_alive(process: int) -> bool:
    """Whether a process of this machine goes on; psutil does not see those of others where `/proc` hides them."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True


def flush(path: Path) -> None:
    """Let the disk have what a file holds, or which names a folder does."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # some network file systems refuse to flush a folder; the rename is then as safe as they make it
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
