"""The web pages of a report: self-contained files, no network (Jinja2 with autoescape)."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from pipeline.words import DISCLAIMER, in_words

if TYPE_CHECKING:
    from pipeline.report.content import CaseContent
    from pipeline.report.pictures import Drawn

#: From `OUT/cases/<case>/report/` to the page of the cohort.
COHORT_LINK = "../../../report.html"
#: Of the pictures in a page: fine lines and letters stay sharp, at a fifth of a PNG's size.
JPEG_QUALITY = 86


def case_page(content: CaseContent) -> bytes:
    """Lay a case out as one self-contained web page without a script.

    Returns:
        HTML bytes, UTF-8; the same for the same content.
    """
    return render("case.html", content.tandem, content=content, cohort_link=COHORT_LINK)


def render(template: str, tandem: str, script: str = "", **values: Any) -> bytes:
    """Fill one of the templates; every value is escaped.

    Args:
        template: file name below `templates/`.
        tandem: version for the footer.
        script: file name of a script below `templates/`; the page runs this one, by its hash, and no other.
        values: what the template needs; a missing one is an error.
    """
    code = (files("pipeline.report") / "templates" / script).read_text(encoding="utf-8") if script else ""
    digest = b64encode(sha256(code.encode()).digest()).decode("ascii") if code else ""
    text = (
        _environment()
        .get_template(template)
        .render(disclaimer=DISCLAIMER, tandem=tandem, script=code, script_hash=digest, **values)
    )
    return text.encode("utf-8")


@cache
def _environment() -> Environment:
    """Once a process, with the templates that it has compiled."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        data_uri=lambda picture: data_uri(picture.png), picture_uri=_picture_uri, jpeg_uri=_jpeg_uri, in_words=in_words
    )
    environment.filters["short_titles"] = short_titles
    return environment


def data_uri(png: bytes) -> str:
    """A PNG as a link that holds its own data."""
    return f"data:image/png;base64,{b64encode(png).decode('ascii')}"


def _jpeg_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode('ascii')}"


def _picture_uri(picture: Drawn) -> str:
    """A picture as a link that holds its own data, as JPEG."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture.png)).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _jpeg_uri(stream.getvalue())


def short_titles(group: Sequence[Drawn]) -> list[str]:
    """The titles of pictures that are shown in turn, without the words that all of them begin with."""
    words = [picture.title.split() for picture in group]
    same = 0
    while all(len(line) > same + 1 and line[same] == words[0][same] for line in words):
        same += 1
    return [text[:1].upper() + text[1:] for text in (" ".join(line[same:]) for line in words)]
