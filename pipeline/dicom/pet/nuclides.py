"""Half-lives of the radionuclides of PET: a header's half-life has to be that of the nuclide that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.dicom.headers.values import SNOMED_RT
from pipeline.dicom.pet.decay import refusal, text

#: Nuclide -> half-life in s. Source: the nuclides of DICOM PS3.16 CID 4020; half-lives of NuDat 3.
# fmt: off
HALF_LIVES_S = {
    "C11": 1221.8, "N13": 597.9, "O14": 70.6, "O15": 122.24, "F18": 6586.2, "Na22": 8.211e7, "K38": 458.2,
    "Sc43": 14008.0, "Sc44": 14400.0, "Ti45": 11088.0, "Mn51": 2772.0, "Mn52": 483060.0, "Mn52m": 1266.0,
    "Fe52": 29790.0, "Cu60": 1422.0, "Cu61": 12020.0, "Cu62": 580.2, "Zn62": 33094.0, "Cu64": 45723.6, "Ga66": 34164.0,
    "Ga68": 4062.6, "Ge68": 2.341e7, "As70": 3156.0, "As72": 93600.0, "Se73": 25740.0, "Br75": 5802.0, "Br76": 58320.0,
    "Br77": 205330.0, "Rb82": 76.0, "Y86": 53064.0, "Zr89": 282280.0, "Nb90": 52560.0, "Y90": 230580.0,
    "Tc94m": 3120.0, "I124": 360806.0, "Tb152": 63000.0,
}
_SYMBOLS = {
    "carbon": "C", "nitrogen": "N", "oxygen": "O", "fluorine": "F", "fluor": "F", "sodium": "Na", "potassium": "K",
    "scandium": "Sc", "titanium": "Ti", "manganese": "Mn", "iron": "Fe", "copper": "Cu", "zinc": "Zn", "gallium": "Ga",
    "germanium": "Ge", "arsenic": "As", "selenium": "Se", "bromine": "Br", "rubidium": "Rb", "yttrium": "Y",
    "zirconium": "Zr", "niobium": "Nb", "technetium": "Tc", "iodine": "I", "terbium": "Tb",
}
# fmt: on
#: Tables round half-lives to a minute, or two digits.
TOLERANCE = 0.03
_NAMES = "|".join(sorted({*_SYMBOLS, *(symbol.lower() for symbol in _SYMBOLS.values())}, key=len, reverse=True))
_MASS = r"\^?(\d{2,3}m?)\^?"
_NUCLIDE = re.compile(rf"(?<![a-z0-9]){_MASS}[ -]?({_NAMES})(?![a-z])|(?<![a-z])({_NAMES})[ -]?{_MASS}(?![a-z0-9])")


def require_half_life(tracer: Dataset, half_life_s: float) -> None:
    """Refuse a half-life that is not that of the nuclide which the header names, by code or in words.

    Args:
        tracer: the item of RadiopharmaceuticalInformationSequence (0054,0016).
        half_life_s: RadionuclideHalfLife (0018,1075).

    Raises:
        QuarantineError: E_SUV with both.
    """
    for nuclide in dict.fromkeys(_named(tracer)):
        expected = HALF_LIVES_S[nuclide]
        if abs(half_life_s - expected) > TOLERANCE * expected:
            raise refusal(
                f"RadionuclideHalfLife is {half_life_s:g} s, that of {nuclide}, which is named, {expected:g} s."
            )


def _named(tracer: Dataset) -> Iterator[str]:
    """Every nuclide of the table that the tracer's item names."""
    for keyword in ("RadionuclideCodeSequence", "RadiopharmaceuticalCodeSequence"):
        for item in tracer.get(keyword) or []:
            yield from _of_words(_meaning(text(item, "CodeValue"), text(item, "CodingSchemeDesignator")))
            yield from _of_words(text(item, "CodeMeaning"))
    yield from _of_words(text(tracer, "Radiopharmaceutical"))


def _meaning(value: str, scheme: str) -> str:
    """What the standard calls a nuclide's code; empty for a code that is none of CID 4020."""
    code = Code(value, "SRT" if scheme in SNOMED_RT else scheme, "")
    nuclides = (getattr(codes.cid4020, name) for name in codes.cid4020.dir())
    return next((str(nuclide.meaning) for nuclide in nuclides if nuclide == code), "")


def _of_words(words: str) -> Iterator[str]:
    for match in _NUCLIDE.finditer(words.lower()):
        mass, name = (match[1], match[2]) if match[1] else (match[4], match[3])
        nuclide = f"{_SYMBOLS.get(name, name.capitalize())}{mass}"
        if nuclide in HALF_LIVES_S:
            yield nuclide
