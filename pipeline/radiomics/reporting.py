"""The reporting sheet: what a study says of how its features were made. Source: IBSI reference manual, chapter 4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pipeline.radiomics.configurations import Configuration
from pipeline.radiomics.settings import Bins, Settings

#: What only the study knows.
YOURS = "*(the study's to say)*"
_STUDY = {
    "Patients": "number, age, sex, disease, in- and exclusion",
    "Acquisition": "modality, vendor, protocol, contrast, tracer and time",
    "Reconstruction": "method, kernel, voxel size",
    "Segmentation": "who or what drew the regions, on which image, and how often",
}


def sheet(configurations: Iterable[Configuration], versions: Mapping[str, str], prepared: str = "") -> str:
    """The sheet as Markdown.

    Args:
        configurations: what was measured by.
        versions: of the software: package -> version.
        prepared: what was done to the images before, such as registration; empty where nothing is known of it.
    """
    lines = ["# Reporting sheet of the features", "", "After chapter 4 of the IBSI reference manual.", ""]
    lines += ["| The study | |", "|---|---|"]
    lines += [f"| {name} | {YOURS}: {what} |" for name, what in _STUDY.items()]
    lines += [f"| Image registration and conversion | {prepared or YOURS} |", ""]
    for item in configurations:
        lines += [f"| Configuration `{item.name}` | settings {item.digest} |", "|---|---|"]
        lines += [f"| {name} | {text} |" for name, text in _rows(item.settings)]
        lines += [""]
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines += [f"Software: {software}. Compliance with IBSI: docs/reference/ibsi.md lists every reference value.", ""]
    return "\n".join([*lines, "Research use only. Not a medical device.", ""])


def _rows(settings: Settings) -> Iterator[tuple[str, str]]:
    grid = settings.spacing_mm
    yield (
        "Interpolation",
        "none: the image's own grid"
        if grid is None
        else (
            f"{settings.interpolation} to {' x '.join('own' if side is None else f'{side:g}' for side in grid)} mm, "
            "grids aligned by their centres; masks linear, cut at 0.5"
        ),
    )
    yield "Rounding", "to whole numbers after interpolation" if settings.whole_numbers else "none"
    ends = [f"{word} {end:g}" for word, end in zip(("from", "to"), settings.range, strict=True) if end is not None]
    yield "Re-segmentation by range", " ".join(ends) or "none"
    outliers = settings.outliers_sd
    yield "Re-segmentation of outliers", "none" if outliers is None else f"beyond {outliers:g} standard deviations"
    if settings.filter is None:
        yield "Filter", "none"
    else:
        values = settings.filter.model_dump(mode="json", exclude_none=True).items()
        yield "Filter, of the whole image", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values)
    yield "Discretisation", _bins(settings.bins, settings.measured_range[0])
    yield "Discretisation of the intensity-volume histogram", _bins(settings.ivh_bins, settings.measured_range[0])
    yield "Families of features", ", ".join(settings.families)
    yield "Aggregation of texture", ", ".join(settings.aggregations)
    yield "Distance of neighbours", f"{settings.distance} (Chebyshev), no weighting by distance"
    yield "Coarseness of NGLDM", f"alpha {settings.alpha}"


def _bins(bins: Bins | None, low: float | None) -> str:
    if bins is None:
        return "none: the values are levels"
    if bins.number is not None:
        return f"fixed bin number, {bins.number}"
    start = "the region's least value" if low is None else f"{low:g}"
    return f"fixed bin size, {bins.width:g}, from {start if bins.start == 'range' else 'a multiple of the size'}"
