"""What is measured and how: one frozen description, and the presets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, get_args

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from pipeline.errors import UsageError
from pipeline.radiomics.filters import KINDS, AnyFilter, Riesz
from pipeline.radiomics.glossary import tags
from pipeline.spec.explain import Model, did_you_mean

Family = Literal["morph", "loc", "stat", "ih", "ivh", "cm", "rlm", "szm", "dzm", "ngt", "ngl"]
#: Averaged over slices and directions; over slices; over directions, slices merged; merged; and in three dimensions.
Aggregation = Literal["2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb", "3D_avg", "3D_comb"]
FAMILIES: tuple[Family, ...] = get_args(Family)
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
#: More grey levels than this are refused before any matrix is made.
MOST_BINS = 65_536


class Bins(Model):
    """Grey levels of a region: so many between its least and its highest value, or each so wide.

    Attributes:
        number: fixed number of bins. Source: IBSI 2.7 (K15C).
        width: fixed width, in the image's unit. Source: IBSI 2.7 (Q3RU).
        start: where the first bin of a fixed width begins: at the range's lower end (at the least value where there is
            none), or at the multiple of the width below the least value, as PyRadiomics has it.
    """

    number: int | None = Field(default=None, ge=1, le=MOST_BINS)
    width: FiniteFloat | None = Field(default=None, gt=0)
    start: Literal["range", "multiple"] = "range"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.number is None) == (self.width is None):
            raise ValueError("either number or width is needed, not both")
        return self


class Settings(Model):
    """How a region is prepared and what is measured of it.

    Attributes:
        spacing_mm: size of the voxels to interpolate to, along I, J, K; None keeps the image's, of an axis or of all.
        interpolation: of the image; masks are always interpolated linearly and cut at .5.
        whole_numbers: round values after interpolation, as for HU.
        range: lowest and highest value that stays in the region; None is open.
        outliers_sd: values farther from the mean than so many standard deviations leave the region, after `range`.
        filter: what the image is filtered with after interpolation, before anything but shape is measured; region,
            `range` and `outliers_sd` are those of the unfiltered image.
        bins: grey levels of histogram and texture; None takes values that are whole numbers from 1 as they are.
        ivh_bins: of the intensity-volume histogram; None takes values as they are, whole numbers.
        distance: of neighbours in GLCM, NGTDM and NGLDM, Chebyshev, voxels.
        alpha: levels that differ by no more depend on each other (NGLDM).
        families: which are measured.
        aggregations: which ones of texture; zones and neighbourhoods have no directions, so that of each pair one does.
    """

    spacing_mm: tuple[FiniteFloat | None, FiniteFloat | None, FiniteFloat | None] | None = None
    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    whole_numbers: bool = False
    range: tuple[FiniteFloat | None, FiniteFloat | None] = (None, None)
    outliers_sd: FiniteFloat | None = Field(default=None, gt=0)
    filter: AnyFilter | None = None
    bins: Bins | None = Bins(number=32)
    ivh_bins: Bins | None = Bins(number=1000)
    distance: int = Field(default=1, ge=1, le=10)
    alpha: int = Field(default=0, ge=0)
    families: tuple[Family, ...] = FAMILIES
    aggregations: tuple[Aggregation, ...] = AGGREGATIONS

    @model_validator(mode="after")
    def _possible(self) -> Self:
        low, high = self.range
        if low is not None and high is not None and low >= high:
            raise ValueError(f"the range must rise, got {low} to {high}")
        if self.spacing_mm and any(item is not None and item <= 0 for item in self.spacing_mm):
            raise ValueError(f"spacing_mm must be above 0, got {self.spacing_mm}")
        return self

    @property
    def measured_range(self) -> tuple[float | None, float | None]:
        """Of the values that are measured: a response's is open."""
        return (None, None) if self.filter else self.range

    @property
    def tags(self) -> list[str]:
        """IBSI's tags of the features that are asked for."""
        return tags(self.families, self.aggregations)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Settings:
        """Settings of plain values, such as a YAML file's.

        Raises:
            UsageError: E_CONFIG for an unknown key or name, with the nearest one, or an impossible value.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UsageError("E_CONFIG", f"Expected settings of radiomics, got {_explained(error)}") from error


#: Values of IBSI's examples. Source: Zwanenburg et al., Radiology 295, 2020, table 1, configuration C, for CT.
PRESETS: dict[str, Settings] = {
    "ibsi_ct": Settings(
        spacing_mm=(2, 2, 2), whole_numbers=True, range=(-1000, 400), bins=Bins(width=25), ivh_bins=Bins(width=2.5)
    ),
    "ibsi_pet": Settings(spacing_mm=(3, 3, 3), range=(0, None), bins=Bins(width=0.25), ivh_bins=Bins(width=0.1)),
    "ibsi_mr": Settings(spacing_mm=(1, 1, 1), outliers_sd=3, bins=Bins(number=32), ivh_bins=Bins(number=1000)),
    "pyradiomics_default": Settings(
        bins=Bins(width=25, start="multiple"),
        families=("morph", "stat", "ih", "cm", "rlm", "szm", "ngt", "ngl"),
        aggregations=("3D_avg",),
    ),
}


def preset(name: str) -> Settings:
    """Settings by name.

    Raises:
        UsageError: E_CONFIG with the nearest name.
    """
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        near = did_you_mean(name, PRESETS)
        raise UsageError("E_CONFIG", f"Expected a preset of radiomics ({known}), got {name}{near or '.'}")
    return PRESETS[name]


def _explained(error: ValidationError) -> str:
    # a misspelt key, not the one that it leaves out
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"]) or "the settings"
    if first["type"] == "extra_forbidden":
        return f"{where}, which is no key{did_you_mean(str(first['loc'][-1]), _keys_beside(first['loc'])) or '.'}"
    given = str(first.get("ctx", {}).get("tag", first["input"]))
    known = [name for name in re.findall(r"'(\w+)'", first["msg"]) if name != given]
    near = did_you_mean(given, known) or "."
    return f"{where}: {first['msg'].replace('Input should', 'must')}, got {given[:60]}{near}"


def _keys_beside(place: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that there are at the place of an unknown one."""
    match place[:-1]:
        case ():
            return Settings.model_fields
        case ("filter", kind):
            return KINDS[str(kind)].model_fields
        case ("filter", _, "riesz"):
            return Riesz.model_fields
    return Bins.model_fields
