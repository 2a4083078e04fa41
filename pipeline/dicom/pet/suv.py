"""Standardised uptake values by body weight: the factor that a PET series' own header gives, or the reason why none."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from monai.transforms import MapTransform
from pydicom.dataset import Dataset

from pipeline.cases import Series
from pipeline.dicom.objects.objects import read_object
from pipeline.dicom.pet.decay import Waited, decay, number, positive, private_text, refusal, shown, text
from pipeline.dicom.pet.nuclides import require_half_life
from pipeline.dicom.pixels.rescale import rescale_of
from pipeline.errors import flag_of, told_of

#: A dose below this many Bq was entered in MBq; a weight above this many kg in g. Neither is guessed.
LEAST_DOSE_BQ, MOST_WEIGHT_KG = 1e5, 600.0
_PHILIPS = "Philips PET Private Group"
# fmt: off
_IMAGE_TAGS = (
    "AcquisitionDate", "AcquisitionTime", "Units", "FrameReferenceTime", "ActualFrameDuration", "DecayCorrection",
)
# fmt: on


@dataclass(frozen=True)
class Uptake:
    """How a PET series becomes SUV.

    Attributes:
        factor: SUV by body weight in g/ml for one unit of the rescaled voxel values.
        measures: what it was made of.
        flags: what a reader has to know (codes `N_...` with a sentence).
    """

    factor: float
    measures: dict[str, Any]
    flags: tuple[str, ...] = ()


def uptake_of(series: Series) -> Uptake:
    """The factor that turns a PET series' rescaled values into SUV by body weight.

    Raises:
        QuarantineError: E_SUV naming what the header lacks or contradicts; nothing is guessed.

    Source: QIBA FDG-PET/CT profile, "vendor-neutral pseudo-codes for SUV calculation"; DICOM PS3.3 C.8.9.1 (PET Series
        Module), C.8.9.4 (PET Image Module).
    """
    header = read_object(series.files[0])
    images = [read_object(path, _IMAGE_TAGS) for path in series.files]
    for keyword in ("Units", "DecayCorrection"):
        if len({text(image, keyword) for image in images}) > 1:
            raise refusal(f"The slices have different {keyword}.")
    units = text(header, "Units")
    if units == "GML":
        return _stored(header)
    if units == "CNTS":
        return _of_counts(header, images)
    if units == "BQML":
        return _of_activity(header, images, 1.0)
    raise refusal(f"Expected Units of BQML, CNTS or GML, got {shown(units)}.")


def _stored(header: Dataset) -> Uptake:
    """The values are SUV already, if the scanner means body weight."""
    kind = text(header, "SUVType") or "BW"
    if kind != "BW":
        raise refusal(f"The values are SUV of the type {shown(kind)}, not by body weight (BW).")
    return Uptake(1.0, {"suv_factor": 1.0, "suv_from": "GML"})


def _of_counts(header: Dataset, images: Sequence[Dataset]) -> Uptake:
    """Philips stores counts, with a private factor to SUV, or one to Bq/ml."""
    suv, activity = (number(private_text(header, 0x7053, _PHILIPS, element)) for element in (0x00, 0x09))
    if suv and suv > 0:
        _require_corrections(header)
        return Uptake(suv, {"suv_factor": suv, "suv_from": "CNTS, (7053,1000)"})
    if activity and activity > 0:
        return _of_activity(header, images, activity)
    raise refusal("Units are CNTS, and neither the factor to SUV (7053,1000) nor to Bq/ml (7053,1009) is there.")


def _of_activity(header: Dataset, images: Sequence[Dataset], bq_ml: float) -> Uptake:
    """SUV = activity concentration x body weight / dose, the dose decayed to the time of the image's correction."""
    _require_corrections(header)
    tracer = _tracer(header)
    weight_kg = positive(header, "PatientWeight")
    dose_bq = positive(tracer, "RadionuclideTotalDose")
    half_life_s = positive(tracer, "RadionuclideHalfLife")
    require_half_life(tracer, half_life_s)
    if weight_kg > MOST_WEIGHT_KG:
        raise refusal(f"PatientWeight is above {MOST_WEIGHT_KG:g} kg: it is not in kg.")
    if dose_bq < LEAST_DOSE_BQ:
        raise refusal(f"RadionuclideTotalDose is below {LEAST_DOSE_BQ:g} Bq: it is not in Bq.")
    correction = text(header, "DecayCorrection")
    if correction not in ("START", "ADMIN"):
        raise refusal(f"Expected DecayCorrection START or ADMIN, got {shown(correction)}.")
    # corrected to the administration, the images go with the dose as it was injected
    waited = decay(header, images, tracer, half_life_s) if correction == "START" else Waited(0.0, "ADMIN")
    factor = bq_ml * weight_kg * 1000 / (dose_bq * 2 ** (-waited.seconds / half_life_s))
    measures = {
        "suv_factor": factor,
        "suv_from": f"{text(header, 'Units')}, {waited.source}",
        "decay_minutes": waited.seconds / 60,
        "weight_kg": weight_kg,
        "dose_mbq": dose_bq / 1e6,
        "half_life_s": half_life_s,
    }
    return Uptake(factor, measures, waited.flags)


def _require_corrections(header: Dataset) -> None:
    corrected = text(header, "CorrectedImage").split("\\")
    lacking = [name for name, code in (("decay", "DECY"), ("attenuation", "ATTN")) if code not in corrected]
    if lacking:
        raise refusal(f"CorrectedImage does not say that the images are corrected for {' and '.join(lacking)}.")


def _tracer(header: Dataset) -> Dataset:
    sequence = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(sequence) != 1:
        raise refusal(f"Expected one item in RadiopharmaceuticalInformationSequence, got {len(sequence)}.")
    return sequence[0]


def to_suv(series: Series, factor: float) -> Series:
    """The series whose rescale gives SUV: each slice's own slope and intercept, times the factor."""
    pairs = [(item, *rescale_of(item)) for item in series.instances]
    instances = [replace(item, slope=factor * slope, intercept=factor * intercept) for item, slope, intercept in pairs]
    return replace(series, instances=tuple(instances))


class ToSuvd(MapTransform):
    """Turn the PET series of roles into SUV by body weight, before they are read."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(list(keys), allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each role's `Series` by one that is rescaled to SUV; add the factor and its parts to the measures."""
        case = dict(data)
        if case.get("fault") is not None:
            return case
        for key in self.key_iterator(case):
            with told_of(str(key)):
                found = uptake_of(case[key])
            case[key] = to_suv(case[key], found.factor)
            named = {f"{key}_{name}": value for name, value in found.measures.items()}
            case["measures"] = {**case.get("measures", {}), **named}
            case["flags"] = [*case.get("flags", ()), *(flag_of(str(key), flag) for flag in found.flags)]
        return case
