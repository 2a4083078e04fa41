"""Tables whose cases were made of one class's files: no patients, and every such table says so."""

from __future__ import annotations

from pathlib import Path

from pipeline.columns import read_rows

#: How the files of a case were found to be one: by their common name, or in the files of a class.
COLUMN, BY_NAME, BY_CLASS = "pairing", "stem", "class"


def is_class_paired(table: Path) -> bool:
    """Whether any case of a table was made of one class's files: the column `pairing` says `class`.

    Raises:
        UsageError: E_TABLE when the table cannot be read.
    """
    return any(row.get(COLUMN) == BY_CLASS for row in read_rows(table, ["case_id"], every=True))
