"""What a page says of a region: its main features in words, and where it stands among the cohort's."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from pipeline.radiomics.flags import FLAGS
from pipeline.radiomics.table import Plain
from pipeline.words import NOT_AVAILABLE, number_text, with_unit

#: IBSI's tag -> its words, of what most readers look for first; texture in three dimensions, merged or averaged.
MAIN: dict[str, str] = {
    "morph_volume": "Volume (mesh)",
    "morph_area_mesh": "Surface",
    "morph_sphericity": "Sphericity",
    "morph_diam": "Longest diameter in 3D",
    "stat_mean": "Mean",
    "stat_median": "Median",
    "stat_min": "Least value",
    "stat_max": "Highest value",
    "stat_p10": "10th percentile",
    "stat_p90": "90th percentile",
    "stat_skew": "Skewness",
    "stat_kurt": "Excess kurtosis",
    "loc_peak_loc": "Local peak",
    "ih_entropy": "Entropy of the histogram",
    "cm_joint_entr_3D_comb": "GLCM joint entropy, 3D merged",
    "cm_contrast_3D_comb": "GLCM contrast, 3D merged",
    "cm_corr_3D_comb": "GLCM correlation, 3D merged",
    "rlm_sre_3D_comb": "GLRLM short runs emphasis, 3D merged",
    "szm_zs_entr_3D": "GLSZM zone size entropy",
    "ngt_coarseness_3D": "NGTDM coarseness",
}
#: Fewer regions than this give no percentile.
LEAST_OF_COHORT = 5


def values_of(cohort: Sequence[Plain]) -> dict[str, list[float]]:
    """The main features of regions that can be compared: tag -> values, rising; without those that none has."""
    found = {tag: sorted(float(row[tag]) for row in cohort if row.get(tag)) for tag in MAIN}
    return {tag: values for tag, values in found.items() if values}


def main_rows(
    row: Plain, units: Mapping[str, str], cohort: Mapping[str, Sequence[float]]
) -> Iterator[tuple[str, str, str]]:
    """Words, value and percentile of the main features that any region of the cohort has.

    Args:
        row: of a table under IBSI's names.
        units: tag -> unit; empty where there is none.
        cohort: `values_of` all rows of the same region, image and configuration, this one among them.
    """
    for tag, words in MAIN.items():
        if tag in cohort:
            text = with_unit(number_text(float(row[tag])), units.get(tag, "")) if row[tag] else NOT_AVAILABLE
            yield words, text, percentile_text(row[tag], cohort[tag])


def unit_in(unit: str, of_image: str) -> str:
    """A feature's unit with the image's own for `x`; empty where it has none, or the image's is not known."""
    if unit == "1" or ("x" in unit and not of_image):
        return ""
    return unit.replace("x", of_image)


def percentile_text(own: str, values: Sequence[float]) -> str:
    """The part of rising values that lie below one, ties counted half: `72 % of 33`; `–` where there are few."""
    if not own or len(values) < LEAST_OF_COHORT:
        return "–"
    below = (bisect_left(values, float(own)) + bisect_right(values, float(own))) / 2
    return f"{100 * below / len(values):.0f} % of {len(values)}"


def flag_sentences(row: Plain) -> tuple[str, ...]:
    """What a reader has to know of a row: its flags in words, and why it was not measured."""
    flags = [flag for flag in row["flags"].split("; ") if flag]
    return (*((row["error"],) if row["error"] else ()), *(FLAGS[flag] for flag in flags))
