"""The columns of a table that a person wrote, found whatever the case, spaces and punctuation of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.console import echo
from pipeline.errors import UsageError

PATIENT = "patient_id"
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


def _plain(name: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _only(numbers: Sequence[int], names: Sequence[str], name: str, table: str) -> int:
    if len(numbers) > 1:
        got = ", ".join(names[number] for number in numbers)
        remedy = "Keep one of them, or give them other names."
        raise UsageError("E_TABLE", f"Expected one column {name} in {table}, got {got[:80]}.", remedy)
    return numbers[0]
