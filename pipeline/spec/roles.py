"""The `roles` and `masks` of a data spec: what plays a role, and which regions become a label image."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from pipeline.spec.explain import Model, did_you_mean
from pipeline.spec.paths import compile_pattern

Orientation = Literal["axial", "coronal", "sagittal", "any"]
ROLE_NAME = r"^[a-z][a-z0-9_]*$"
#: The unit of a role whose PET is turned into standardised uptake values by body weight, g/ml.
SUV_BODY_WEIGHT = "SUVbw"
#: Units, as `plain_unit` gives them, that say nothing of the values.
ARBITRARY = frozenset({"", "au", "arbitraryunits"})
_ALIASES = {"hounsfield": "hu", "hounsfieldunits": "hu", "counts": "cnts", "bqcc": "bqml", "gcc": "gml"}
#: What a role asks of DICOM headers, which NIfTI files do not have.
_OF_DICOM = frozenset({"dimensions", "orientation", "min_instances", "part", "all", "any", "none", "prefer"})


def role_of(text: str) -> str:
    """A text as the name of a role: `T1 (Gd)` -> `t1_gd`, and `channel` before what does not begin with a letter."""
    name = re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if re.match(ROLE_NAME, name) else "_".join(filter(None, ("channel", name)))


def plain_unit(text: str) -> str:
    """A unit without what is spelt in several ways: `Bq/ml`, `Bq/mL` and `BQML` are one."""
    plain = re.sub(r"[^a-z0-9%]", "", text.lower())
    return _ALIASES.get(plain, plain)


def _compiled(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


def _pattern(value: str) -> str:
    compile_pattern(value)
    return value


Expression = Annotated[str, AfterValidator(_compiled)]
PathPattern = Annotated[str, AfterValidator(_pattern)]


class Rule(Model):
    """One condition on one header value.

    Attributes:
        tag: the DICOM keyword, such as `SeriesDescription`.
        matches: a regular expression that is found in the value (several values are joined by a backslash).
        min: the smallest number that is accepted.
        max: the largest number that is accepted.
    """

    tag: str
    matches: Expression | None = None
    min: StrictFloat | None = None
    max: StrictFloat | None = None

    @field_validator("tag")
    @classmethod
    def _is_a_keyword(cls, value: str) -> str:
        from pydicom.datadict import keyword_dict

        if value not in keyword_dict:
            near = difflib.get_close_matches(value, keyword_dict, n=1)
            raise ValueError(f"`{value}` is no DICOM keyword" + (f"; did you mean `{near[0]}`?" if near else ""))
        return value

    @model_validator(mode="after")
    def _asks_something(self) -> Rule:
        if (self.matches is None) == (self.min is None and self.max is None):
            raise ValueError("a rule needs either `matches`, or `min` and/or `max`")
        return self


#: What people call modalities -> the value of Modality (0008,0060). Source: DICOM PS3.3 C.7.3.1.1.1.
_MODALITIES = {"PET": "PT", "PET/CT": "PT", "MRI": "MR", "MRT": "MR", "CAT": "CT", "XRAY": "DX", "X-RAY": "DX"}
_MODALITIES |= {"SPECT": "NM", "ULTRASOUND": "US", "MAMMO": "MG"}
#: All values that the standard knows, those of before among them. Source: the same.
_TERMS = """
ANN AR AS ASMT AU BDUS BI BMD CD CF CFM CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC ECG EEG EMG EOG EPS ES
FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV
OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG
SM SMR SR SRF ST STAIN TEXTUREMAP TG US VA VF VIDD XA XAPROTOCOL XC
"""
KNOWN_MODALITIES = frozenset(_TERMS.split())


def wrong_modality(value: str) -> str:
    """Why a text is no value of Modality (0008,0060), with the one that is meant; empty where it is one."""
    meant = _MODALITIES.get(value.strip().upper(), value.strip().upper())
    if meant == value and value in KNOWN_MODALITIES:
        return ""
    near = f"; did you mean `{meant}`?" if meant in KNOWN_MODALITIES else did_you_mean(meant, KNOWN_MODALITIES)
    return f"`{value}` is no value of Modality (0008,0060){near}"


class Role(Model):
    """What a series has to be to play a role.

    Attributes:
        modality: the accepted values of Modality (0008,0060).
        unit: what the voxel values are (`HU`, `a.u.`, `Bq/ml` …): headers that say another one are refused, and only
            images in arbitrary units are filtered and normalised.
        required: without it the case is quarantined.
        dimensions: 3 for volumes, 2 for radiographs, each image of which stands for itself.
        orientation: the plane of the slices.
        min_instances: the fewest slices of a volume.
        part: a regular expression that is found in the name of the part of a series that was split.
        all: every rule has to hold.
        any: at least one rule has to hold.
        none: no rule may hold.
        prefer: what decides, one after the other, when several series are left (`latest`: of repeated acquisitions
            of one protocol); when it does not, the case is quarantined as ambiguous.
        files: which NIfTI files of the tree play the role (`pipeline.spec.paths`); the role is then not of DICOM.
    """

    modality: tuple[str, ...]
    unit: str = "a.u."
    required: StrictBool = True
    dimensions: Literal[2, 3] = 3
    orientation: Orientation = "any"
    min_instances: StrictInt = Field(default=2, ge=2)
    part: Expression | None = None
    all: tuple[Rule, ...] = ()
    any: tuple[Rule, ...] = ()
    none: tuple[Rule, ...] = ()
    prefer: tuple[Literal["most_instances", "first_part", "latest"], ...] = ()
    files: PathPattern | None = None

    @model_validator(mode="after")
    def _radiographs_are_single(self) -> Role:
        if self.dimensions == 2 and {"min_instances", "orientation"} & self.model_fields_set:
            raise ValueError("a role of `dimensions: 2` takes single images: no `min_instances`, no `orientation`")
        return self

    @model_validator(mode="after")
    def _files_have_no_headers(self) -> Role:
        of_dicom = self.model_fields_set & _OF_DICOM if self.files else set()
        if of_dicom:
            raise ValueError(f"`{min(of_dicom)}` is about DICOM headers: it does not go with `files`")
        return self

    @field_validator("modality", "prefer", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("modality")
    @classmethod
    def _of_dicom(cls, modality: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := next(filter(None, map(wrong_modality, modality)), ""):
            raise ValueError(wrong)
        return modality

    @model_validator(mode="after")
    def _suv_is_of_pet(self) -> Role:
        if self.unit != SUV_BODY_WEIGHT and plain_unit(self.unit) in ("suv", SUV_BODY_WEIGHT.lower()):
            raise ValueError(f"`unit: {self.unit}` is not known; did you mean `{SUV_BODY_WEIGHT}`?")
        if self.unit == SUV_BODY_WEIGHT and self.modality != ("PT",):
            raise ValueError(f"the unit {SUV_BODY_WEIGHT} is for the modality PT alone")
        return self


class Mask(Model):
    """Which regions of the structure sets and segmentations become a label image on a role's grid.

    Attributes:
        of: the role on whose grid the mask lies; the objects have to refer to its series.
        labels: label name -> a regular expression that is found in the region's name; values 1, 2 … in this order.
        required: without it the case is quarantined.
        prefer: what decides when several objects are left; without it the case is quarantined as ambiguous.
        files: which NIfTI files of the tree are the label images, instead of structure sets and segmentations.
        values: for `files`, instead of `labels`: label name -> its value in the files.
    """

    of: str
    labels: dict[str, str] = Field(default={}, max_length=255)
    required: StrictBool = True
    prefer: Literal["latest"] | None = None
    files: PathPattern | None = None
    values: dict[str, StrictInt] = Field(default={})

    @property
    def label_values(self) -> dict[str, int]:
        """Label name -> its value in the label image."""
        return self.values or {name: number for number, name in enumerate(self.labels, start=1)}

    @model_validator(mode="after")
    def _one_source(self) -> Mask:
        if self.files is None and (self.values or not self.labels):
            raise ValueError("a mask needs `labels` (or, for NIfTI files, `files` and `values`)")
        if self.files is not None and (self.labels or self.prefer or not self.values):
            raise ValueError("a mask of `files` needs `values`, and neither `labels` nor `prefer`")
        if not all(re.match(ROLE_NAME, name) for name in self.values):
            raise ValueError("labels are named with lower-case letters, digits and _")
        if len(set(self.values.values())) < len(self.values) or not all(0 < v <= 65535 for v in self.values.values()):
            raise ValueError("`values` are different whole numbers from 1 to 65535")
        return self

    @field_validator("labels")
    @classmethod
    def _usable(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, pattern in labels.items():
            if not re.match(ROLE_NAME, name):
                raise ValueError(f"`{name}` cannot name a label: use lower-case letters, digits and _")
            _compiled(pattern)
        return labels
