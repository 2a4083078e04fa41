"""Pseudonyms: keyed and one-way. The key and the table that links them back stay outside every output folder."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import os
import re
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.store.files import save_text, write_atomic

KEY_BYTES = 32
#: The file of a run folder that tells which key it was made with, without telling the key.
KEY_NAME = ".key"
PRIVATE_MODE = 0o600
#: Ten years: neither the season nor the year tells the date.
LONGEST_SHIFT_DAYS = 3652
#: How a byte of a file's name that is no UTF-8 stands in a table.
_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")


def private_folder() -> Path:
    """Where the key and the link tables are kept: TANDEM_HOME, else `~/.tandem`.

    Raises:
        UsageError: E_KEY for a user without a home, as in a container that runs under any number.
    """
    try:
        return Path(os.environ.get("TANDEM_HOME") or Path.home() / ".tandem")
    except RuntimeError as error:
        what = "Expected a home folder for the pseudonym key, but this user has none."
        raise UsageError("E_KEY", what, "Set TANDEM_HOME to a folder of your own that stays.") from error


class Pseudonyms:
    """Turn a hospital's identifiers into pseudonyms.

    The same key gives the same pseudonym, in every run and on every machine; without the key nobody can tell which
    patient it was, not even by trying all identifiers (HMAC-SHA256, RFC 2104).

    Args:
        output_dir: the run folder, in or above which no key may lie.
        folder: where the key is; made at the first use.

    Raises:
        UsageError: E_KEY when the key lies in the output folder, cannot be read, or others may read it.
    """

    def __init__(self, output_dir: Path, folder: Path | None = None) -> None:
        self.folder = (folder or private_folder()).resolve()
        if self.folder.is_relative_to(output_dir.resolve()):
            raise UsageError("E_KEY", f"The pseudonym key's folder {self.folder} lies in the output folder.")
        self._key = _key(self.folder / "key")
        self._links = self.folder / "links" / hashlib.sha256(os.fsencode(output_dir.resolve())).hexdigest()[:12]

    def of(self, kind: str, *identifiers: str) -> str:
        """The pseudonym of identifiers, such as `case-1f3a09c2b7de`."""
        return f"{kind}-{self._digest(kind, *identifiers).hex()[:12]}"

    def hold(self, output_dir: Path) -> None:
        """Let a run folder remember the key that its cases are named with: with another one a patient would be two.

        Raises:
            UsageError: E_KEY when it was another one.
        """
        path, name = output_dir / KEY_NAME, self.of("key")
        if not path.is_file():
            save_text(path, name)
        elif path.read_text(encoding="utf-8") != name:
            what = f"The cases of {output_dir} are named with another pseudonym key than that in {self.folder}."
            raise UsageError(
                "E_KEY", what, "Set TANDEM_HOME to the folder of that key, or choose another output folder."
            )

    def uid(self, original: str) -> str:
        """The UID that stands for one of the hospital's, the same everywhere. Source: DICOM PS3.5 B.2 (root 2.25)."""
        return f"2.25.{int.from_bytes(self._digest('uid', original)[:16], 'big')}"

    def days(self, patient: str) -> int:
        """By how many days a patient's dates are moved into the past: 1 to `LONGEST_SHIFT_DAYS`."""
        return 1 + int.from_bytes(self._digest("days", patient)[:8], "big") % LONGEST_SHIFT_DAYS

    def _digest(self, *parts: str) -> bytes:
        return hmac.new(self._key, _as_bytes("\0".join(parts)), hashlib.sha256).digest()

    def kept(self, name: str) -> list[dict[str, str]]:
        """The rows of a table that `keep` has written, none where there is no such table; names with their bytes."""
        path = self._links / name
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(_BYTE.sub(lambda found: chr(int(found[1], 16)), line) for line in stream)
            return list(rows)

    def place(self, name: str) -> Path:
        """The path of a private file of the run folder, beside the key, in a folder of its owner's alone."""
        self._links.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._links / name

    def keep(self, name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
        """Write a private table (readable by its owner alone) beside the key; bytes that are no text as escapes.

        Returns:
            Its path.
        """
        text = io.StringIO(newline="")
        csv.writer(text).writerows([header, *rows])
        path = self.place(name)
        write_atomic(path, lambda temporary: write_private(temporary, _as_bytes(text.getvalue())))
        return path


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _key(path: Path) -> bytes:
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _create_key(path)
        if path.stat().st_mode & 0o077:
            raise UsageError("E_KEY", f"The pseudonym key {path} can be read by others: expected mode 0600.")
        key = path.read_bytes()
    except OSError as error:
        what = f"The pseudonym key {path} cannot be read or made ({error.strerror})."
        raise UsageError("E_KEY", what, "Set TANDEM_HOME to a folder of your own that you can write to.") from error
    if len(key) != KEY_BYTES:
        raise UsageError("E_KEY", f"The pseudonym key {path} has {len(key)} bytes instead of {KEY_BYTES}.")
    return key


def _create_key(path: Path) -> None:
    """Make the key so that of two processes that start at once both end with the same one."""
    temporary, content = path.with_name(f".{path.name}-{secrets.token_hex(4)}"), secrets.token_bytes(KEY_BYTES)
    write_private(temporary, content)
    with suppress(FileExistsError):
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without links
            write_private(path, content)
        finally:
            temporary.unlink()


def write_private(path: Path, content: bytes) -> None:
    """Make a file that its owner alone can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
