"""The features' names: IBSI's tags and codes, units, and what PyRadiomics calls what it defines alike."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from pathlib import Path

#: IBSI's codes of the aggregations of matrices with directions, and without.
AGGREGATION_CODES = {
    "2D_avg": "BTW3",
    "2D_comb": "SUJT",
    "2_5D_avg": "JJUI",
    "2_5D_comb": "ZW7Z",
    "3D_avg": "ITBB",
    "3D_comb": "IAZD",
    "2D": "8QNN",
    "2_5D": "62GR",
    "3D": "KOBO",
}
_DIRECTED = ("cm", "rlm")
_TEXTURE = (*_DIRECTED, "szm", "dzm", "ngt", "ngl")


@dataclass(frozen=True)
class Name:
    """One feature's names.

    Attributes:
        tag: as in IBSI's reference files.
        code: IBSI's, of the feature.
        aggregation: IBSI's code of the aggregation; empty where there is none.
        unit: `x` stands for the image's.
        pyradiomics: empty where its definition is another, or there is none.
    """

    tag: str
    code: str
    aggregation: str
    unit: str
    pyradiomics: str


@cache
def names() -> dict[str, Name]:
    """Every feature by its tag, in the order of IBSI's files."""
    with Path(__file__).with_name("glossary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for family, group in groupby(rows, lambda row: row["family"]):
        for kind, row in product(_kinds(family), list(group)):
            tag = "_".join(part for part in (family, row["name"], kind) if part)
            # PyRadiomics averages over directions in three dimensions
            alike = row["pyradiomics"] if kind in ("", "3D", "3D_avg") else ""
            found[tag] = Name(tag, row["code"], AGGREGATION_CODES.get(kind, ""), row["unit"], alike)
    return found


def tags(families: Iterable[str], aggregations: Iterable[str]) -> list[str]:
    """The tags that families and aggregations have, in the order of IBSI's files."""
    kinds = {"", *aggregations, *(name.rsplit("_", 1)[0] for name in aggregations)}
    codes, wanted = {AGGREGATION_CODES.get(kind, "") for kind in kinds}, set(families)
    return [tag for tag, name in names().items() if tag.split("_")[0] in wanted and name.aggregation in codes]


def _kinds(family: str) -> list[str]:
    if family not in _TEXTURE:
        return [""]
    return [kind for kind in AGGREGATION_CODES if kind.endswith(("avg", "comb")) == (family in _DIRECTED)]
