"""Tables whose cases were made of one class's files: no patients, and every such table says so."""

from __future__ import annotations

from pathlib import Path

from pipeline.columns import read_rows

#: In the column `flags` of such a table.
CLASS_PAIRED = "N_CLASS_PAIRED"
FLAGS = "flags"


def is_class_paired(table: Path) -> bool:
    """Whether any case of a table was made of one class's files: the column `flags` holds `N_CLASS_PAIRED`.

    Raises:
        UsageError: E_TABLE when the table cannot be read.
    """
    return any(CLASS_PAIRED in row.get(FLAGS, "").split() for row in read_rows(table, ["case_id"], every=True))
