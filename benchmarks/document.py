"""Markdown pages that commands write: whole ones, or sections; a command writes its own and leaves the others."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.store.files import save_text


def write_section(path: Path, title: str, name: str, text: str) -> None:
    """Put a section into a page, in the place of the former one of the same name, or at the end.

    Args:
        path: the page; it is made where there is none.
        title: of a page that is made.
        name: of the section; comments in the page mark where it begins and ends.
        text: Markdown, with its heading.
    """
    begin, end = f"<!-- {name}: written by a command -->", f"<!-- end of {name} -->"
    section = f"{begin}\n\n{text.strip()}\n\n{end}\n"
    former = path.read_text(encoding="utf-8") if path.is_file() else f"# {title}\n"
    pattern = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}\n", re.DOTALL)
    page = pattern.sub(lambda _: section, former) if pattern.search(former) else f"{former.rstrip()}\n\n{section}"
    save_text(path, page)


def put_page(text: str, path: Path, out: Path | None, write: bool) -> None:
    """Write a whole page: in its place where that is asked for, else into a folder, if there is one.

    Args:
        text: the page.
        path: its place.
        out: a folder.
        write: put it into its place.
    """
    if write or out is not None:
        place = path if write or out is None else out / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        save_text(place, text)
