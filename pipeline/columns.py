"""Tables as text: the columns of one that a person wrote, whatever the case, spaces and punctuation of their names.

And cells that no spreadsheet runs.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.console import echo
from pipeline.errors import UsageError
from pipeline.store.files import require_given

PATIENT = "patient_id"
_WITH_COLUMN = "Give the table this column; docs/how-to/train-and-fuse.md says what each one holds."
_WITHOUT_CLASS = "Give the table the column label, or `--classes 0` where no class is learned or judged."
#: What else a column is called that says whose row it is (DICOM, BIDS, spreadsheets), without case and punctuation.
_PERSON = re.compile(
    r"(patient(en)?|pat|participant|subject|subj|sub|person|proband)s?(id|identifier|nr|no|num|number|key|code|name)?"
    r"|pid|mrn"
)


def find_columns(head: Sequence[str], wanted: Iterable[str], table: str) -> dict[str, int]:
    """Where the columns are that are wanted, and the patient's (`patient_id`) under any of its usual names.

    Args:
        head: the table's first row.
        wanted: names of columns.
        table: the file's name, for messages.

    Returns:
        Name -> number of the column, from 0; those that are not there are not in it.

    Raises:
        UsageError: E_TABLE when two columns have one name, or several may be the patient's.
    """
    names = [name.strip() for name in head]
    found: dict[str, int] = {}
    plain = [_plain(name) for name in names]
    for name in dict.fromkeys((*wanted, PATIENT)):
        exact = [number for number, own in enumerate(names) if own == name]
        near = [number for number, own in enumerate(plain) if own == _plain(name) and names[number] not in wanted]
        found |= {name: _only(exact or near, names, name, table)} if exact or near else {}
    if PATIENT not in found:
        free = [number for number in range(len(names)) if number not in found.values()]
        persons = [number for number in free if _PERSON.fullmatch(plain[number])]
        found |= {PATIENT: _only(persons, names, PATIENT, table)} if persons else {}
    return found


def say_unused(head: Sequence[str], used: Iterable[int], table: str) -> None:
    """Name the columns that nothing reads: one of them may be a misspelt one."""
    left = [name.strip() or "without a name" for number, name in enumerate(head) if number not in set(used)]
    if left:
        echo(f"{table}: not used: {', '.join(left[:20])[:300]}.")


def read_rows(
    path: Path, needed: Sequence[str], optional: Sequence[str] = (), every: bool = False
) -> list[dict[str, str]]:
    """The rows of the table of a data set: column -> text, empty where a row is short.

    Args:
        path: a CSV.
        needed: names of columns, as `find_columns` takes them.
        optional: others; where there are any asked for, those that nothing reads are named.
        every: give all other columns, too, by the names that the table has for them.

    Raises:
        UsageError: E_TABLE when it is no such table, lacks a column or all rows, or a row has more cells than columns;
            E_INPUT, E_UNREADABLE when it cannot be opened.
    """
    head, *rows = read_cells(path, f"a table (.csv) with the columns {', '.join(needed)}")
    at = find_columns(head, [*needed, *optional], path.name)
    absent = [name for name in needed if name not in at]
    if absent:
        got = f"no {absent[0]} among {', '.join(head)[:200]}"
        what = f"Expected the columns {', '.join(needed)} in {path.name}, got {got}."
        raise UsageError("E_TABLE", what, _WITHOUT_CLASS if absent[0] == "label" else _WITH_COLUMN)
    if not rows:
        raise UsageError("E_TABLE", f"Expected cases in {path.name}, got none.", "Add a row for each case.")
    longer = [number for number, row in enumerate(rows, start=2) if any(cell.strip() for cell in row[len(head) :])]
    if longer:
        what = f"Expected {len(head)} cells in row {longer[0]} of {path.name}, got more."
        raise UsageError("E_TABLE", what, "Quote cells that hold commas, and write decimal points.")
    if every:
        at |= _others(head, at.values(), path.name)
    elif optional:
        say_unused(head, at.values(), path.name)
    return [{name: row[number].strip() if number < len(row) else "" for name, number in at.items()} for row in rows]


def read_cells(path: Path, what: str) -> list[list[str]]:
    """The rows of a CSV that hold anything; its cells are parted as `delimiter_of` finds.

    Args:
        path: the table.
        what: is expected, for messages.

    Raises:
        UsageError: E_TABLE when it cannot be read or is empty; E_INPUT, E_UNREADABLE.
    """
    require_given(path, what)
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            delimiter = delimiter_of(stream.readline())
            stream.seek(0)
            rows = [row for row in csv.reader(stream, delimiter=delimiter, skipinitialspace=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = f"Expected {what}, but {path} cannot be read: {error}."
        raise UsageError("E_TABLE", reason, "Save the table as CSV in UTF-8.") from error
    if not rows:
        raise UsageError("E_TABLE", f"Expected rows in {path.name}, got none.")
    return rows


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def delimiter_of(head: str) -> str:
    """What parts the cells of a first line: spreadsheets write semicolons where numbers have decimal commas."""
    return next((mark for mark in ",;\t" if mark in head), ",")


def _others(head: Sequence[str], known: Iterable[int], table: str) -> dict[str, int]:
    names = [name.strip() for name in head]
    left = [name for number, name in enumerate(names) if number not in set(known)]
    return {name: _only([at for at, own in enumerate(names) if own == name], names, name, table) for name in left}


def escape_cell(value: Any) -> Any:
    """Keep a spreadsheet from running a text cell as a formula (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _plain(name: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _only(numbers: Sequence[int], names: Sequence[str], name: str, table: str) -> int:
    if len(numbers) > 1:
        got = ", ".join(names[number] for number in numbers)
        remedy = "Keep one of them, or give them other names."
        raise UsageError("E_TABLE", f"Expected one column {name} in {table}, got {got[:80]}.", remedy)
    return numbers[0]
