"""Whether headers can be of one person. A PatientID is not believed against name, birth date and sex.

Hospitals write one name in many ways, and leave much empty: only what two headers both say can contradict. All values
are the hospital's own and stay private.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import SequenceMatcher
from itertools import combinations
from typing import NamedTuple

PERSON_TAGS = ("PatientName", "PatientBirthDate", "PatientSex")
_PERSON = ("PatientID", *PERSON_TAGS)
#: Words that stand in a name's place where somebody took it out.
_NO_NAME = re.compile(r"anon[a-z]*|unknown|unbekannt|none|null|no|name|noname|removed|redacted|(de)?identified|de|x+")
#: Consoles and de-identifiers write such a year where they know none.
_FIRST_YEAR = "1901"
#: Names that are as alike as this differ by a slip of the keyboard, where birth date and sex agree.
_SLIP = 0.85


class Person(NamedTuple):
    """What a header says of the patient, as it stands there: (0010,0020), (0010,0010), (0010,0030), (0010,0040)."""

    patient_id: str
    name: str
    birth_date: str
    sex: str


def person_of(tags: Mapping[str, str]) -> Person:
    """The person of a header's values."""
    get = tags.get  # asked of every file
    patient, name, birth_date, sex = _PERSON
    return Person(get(patient, ""), get(name, ""), get(birth_date, ""), get(sex, ""))


def clashes(people: Iterable[Person]) -> tuple[str, ...]:
    """The elements by which people cannot all be one; empty where they can."""
    found: set[str] = set()
    for a, b in combinations(dict.fromkeys(people), 2):
        found |= {*_clash(a, b)}
        if len(found) == len(PERSON_TAGS):
            break
    return tuple(tag for tag in PERSON_TAGS if tag in found)


def are_named_apart(people: Iterable[Person]) -> bool:
    """Whether two of them have different names: a new name after a marriage, or a slip, where they do not clash."""
    return any(_named_apart(a, b) for a, b in combinations(dict.fromkeys(people), 2))


def _clash(a: Person, b: Person) -> Iterator[str]:
    """Birth date and sex contradict when both are given and differ; so does a name, but for two cases.

    A name that is another's in all its words, initials and order aside, is the same. One that shares a given name, or
    differs by a slip, is of the same person where birth date *and* sex are given twice and agree.
    """
    days, sexes = (_birth_date(a), _birth_date(b)), (_sex(a), _sex(b))
    other_day = all(days) and not _same_day(*days)
    other_sex = all(sexes) and sexes[0] != sexes[1]
    agree = all(days) and all(sexes) and not other_day and not other_sex
    if _named_apart(a, b) and not (agree and _may_be_renamed(_words(a), _words(b))):
        yield "PatientName"
    if other_day:
        yield "PatientBirthDate"
    if other_sex:
        yield "PatientSex"


def _birth_date(person: Person) -> str:
    digits = re.sub(r"[.\-/ ]", "", person.birth_date)
    return digits if re.fullmatch(r"\d{8}", digits) and digits[:4] >= _FIRST_YEAR else ""


def _same_day(a: str, b: str) -> bool:
    """De-identifiers keep the year alone, as its first of January."""
    return a == b or (a[:4] == b[:4] and "0101" in (a[4:], b[4:]))


def _sex(person: Person) -> str:
    """M or F; O (other) stands for "not known" in many systems."""
    sex = person.sex.strip().upper()[:1]
    return sex if sex in ("M", "F") else ""


def _words(person: Person) -> list[list[str]]:
    """The words of each spelling of a name (alphabetic, ideographic, phonetic); none where it says nothing.

    Case, accents and punctuation go, and both spellings of an umlaut become one. A name that only repeats the
    PatientID is none.
    """
    spellings = [_plain(spelling) for spelling in person.name.split("=")]
    kept = [[word for word in words if not _NO_NAME.fullmatch(word)] for words in spellings]
    return [words for words in kept if words and words != _plain(person.patient_id)]


def _plain(text: str) -> list[str]:
    with suppress(UnicodeError):  # UTF-8 in a file that does not say so was read as Latin-1
        text = text.encode("latin-1").decode("utf-8")
    letters = unicodedata.normalize("NFKD", text.casefold().translate({0xF8: "o", 0xE6: "a", 0x142: "l"}))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.findall(r"[^\W_]+", re.sub(r"([aou])e", r"\1", bare))


def _named_apart(a: Person, b: Person) -> bool:
    """Whether both have a name in one script, and no spelling of the one is one of the other."""
    pairs = [(x, y) for x in _words(a) for y in _words(b) if "".join(x).isascii() == "".join(y).isascii()]
    return bool(pairs) and not any(_same_name(x, y) for x, y in pairs)


def _same_name(a: list[str], b: list[str]) -> bool:
    """Whether each word of the shorter name is one of the longer, or its beginning: an initial, or a cut."""
    few, many = sorted((a, b), key=len)
    left = list(many)
    for word in sorted(few, key=len, reverse=True):
        match = next((other for other in left if other.startswith(word) or word.startswith(other)), None)
        if match is None:
            return "".join(a) == "".join(b)
        left.remove(match)
    return True


def _may_be_renamed(first: list[list[str]], second: list[list[str]]) -> bool:
    """Whether a name may be another's after a marriage (a given name is shared), or be mistyped."""
    pairs = [(x, y) for x in first for y in second]
    alike = (SequenceMatcher(None, " ".join(x), " ".join(y)).ratio() for x, y in pairs)
    return any({*x[1:]} & {*y[1:]} for x, y in pairs) or max(alike) >= _SLIP
