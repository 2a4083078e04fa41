"""Words that say something of an image and nothing of a person: what is left of descriptions, model names and types."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import resources


def _words() -> dict[str, frozenset[str]]:
    """The words of `vocabulary.txt` by what they are about."""
    text = resources.files("pipeline.dicom.confidentiality").joinpath("vocabulary.txt").read_text(encoding="utf-8")
    parts = re.split(r"^# (\w+):.*\n", text, flags=re.MULTILINE)
    return {name: frozenset(words.split()) for name, words in zip(parts[1::2], parts[2::2], strict=True)}


_BY_SUBJECT = _words()
_BODY_WORDS = _BY_SUBJECT["body"]
_ALL_WORDS = frozenset().union(*_BY_SUBJECT.values())

_TOKEN = re.compile(r"\+C\b|[A-Z0-9.*]+")
#: Sizes, times and the like. A bare number has one digit before the point: longer ones could be a date or an ID.
_QUANTITY = re.compile(r"\d(\.\d{1,2})?|\d{1,2}(\.\d{1,2})?(MM|CM|T|MS|S|MIN|D|P|%)|B\d{1,4}|[VIS]\d")
#: Numbers of versions, as vendors write them.
_VERSION = re.compile(r"V?\d{1,2}(\.\d{1,3}){0,3}|(XA|V[A-E]|[B-E])\d{2}[A-D]?")
#: Terms of ImageType that are written in other ways than a word.
_TYPE_TERM = re.compile(r"(FM|M|P|R|I|D|T)\d?(_(SE|FE|FFE|IR|B0|B1|PCA|\d{1,2}))?|ECHO_\d{2}|[A-Z]{2}\d")


def clean(text: str, banned: Collection[str] = (), versions: bool = False) -> str:
    """Keep the safe words of a text, in upper case and in order.

    Args:
        text: any text.
        banned: words in upper case that are not safe for this patient, as they stand in the patient's own name.
        versions: keep numbers of versions, too.

    Returns:
        The words, separated by single spaces; empty where none is safe.
    """
    words = (word.strip(".") for word in _TOKEN.findall(text.upper()))
    return " ".join(
        word for word in words if word not in banned and (_is_safe(word) or (versions and _VERSION.fullmatch(word)))
    )


def is_body_part(text: str) -> bool:
    """Whether a text names parts of the body and nothing else."""
    return all(word in _BODY_WORDS or word in ("LEFT", "RIGHT") for word in text.upper().split())


def is_image_type(term: str) -> bool:
    """Whether one value of ImageType is known."""
    words = [word for word in re.split(r"[ _/]", term) if word]
    return _TYPE_TERM.fullmatch(term) is not None or all(_is_safe(word) for word in words)


def _is_safe(word: str) -> bool:
    return word in _ALL_WORDS or word == "+C" or _QUANTITY.fullmatch(word) is not None
