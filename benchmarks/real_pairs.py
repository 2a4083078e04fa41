"""Real pairs with a published or a clinical alignment to compare with: MR contrasts of one patient, and limbs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from benchmarks.simulated_pairs import FloatArray
from pipeline.body import body_mask
from pipeline.geometry import apply
from pipeline.registration.quality import Pair
from pipeline.volumes import affine_of, matrix_from_transform, volume

PARTS = "parts match better at (mm)"
MS_MEASURES = ("mean error (mm)", "largest error (mm)", PARTS)
STS_MEASURES = ("mean over the MR image (mm)", "mean over the tumour (mm)", PARTS, "NMI of the interior")
MS_TITLE = "open_ms_data: T1 and T2 onto FLAIR, against the published transforms"
MS_ABOUT = (
    "Errors over the body in the FLAIR image; started 5-10 mm and 5-10° off the headers. The *reference* is the",
    "published transform, measured in the same way. Target: a mean of 0.8 mm at most.",
)
STS_TITLE = "Sarcoma of the limbs, CT and MR, against the clinic's alignment"
STS_ABOUT = (
    "Started 5-10 mm and 5-10° off it, twice each: smallest to largest. The *reference* is the clinic's own",
    "alignment, measured in the same way. Target: 8 mm at most from it, and 1 mm at most between the starts.",
    "Limbs lie differently in the two scans, so no rigid pose fits all parts. Where parts match better many mm away by",
    "the reference, and nearer by the pose that was found, the images speak for the latter.",
)
PET_MEASURES = ("mean over the PET image (mm)", *STS_MEASURES[1:])
PET_TITLE = "Sarcoma of the limbs, PET onto CT, against the scanner's alignment"
PET_ABOUT = (
    "Both images are of one PET/CT scan. PET started 5-10 mm and 5-10° off, twice each; the *reference* is the",
    "scanner's own alignment, measured in the same way.",
)
STS_PATIENTS = ("002", "008", "019", "031")
STS_STARTS = 2


@dataclass(frozen=True)
class RealPair:
    """Two images of a patient.

    Attributes:
        name: of the pair.
        group: pairs of one group differ in their start alone.
        fixed: (1, I, J, K).
        moving: (1, I, J, K).
        modalities: DICOM Modality of both.
        reference: 4 x 4 RAS mm, the published alignment, from fixed to moving points.
        points: where to compare, by measure: (N, 3) RAS mm in the fixed image.
        measures: names of what `errors_mm` gives.
        disturbed: how the moving image's world was moved against where it really is.
    """

    name: str
    group: str
    title: str
    about: Sequence[str]
    fixed: MetaTensor
    moving: MetaTensor
    modalities: tuple[str, str]
    reference: FloatArray
    points: dict[str, FloatArray]
    measures: Sequence[str]
    disturbed: FloatArray = field(default_factory=lambda: np.eye(4))

    @cached_property
    def _pair(self) -> Pair:
        masks = (body_mask(image, name) for image, name in zip((self.fixed, self.moving), self.modalities, strict=True))
        return Pair(self.fixed, self.moving, *masks)

    def undisturbed(self, matrix: FloatArray) -> FloatArray:
        """A pose as it is for the image where it really is."""
        return np.asarray(np.linalg.inv(self.disturbed) @ matrix)

    def errors_mm(self, matrix: FloatArray) -> dict[str, float]:
        """By measure, how far a pose is from the reference, and how well the images say that their parts fit."""
        pose = self.undisturbed(matrix)
        apart = {
            name: np.linalg.norm(apply(pose, points) - apply(self.reference, points), axis=1)
            for name, points in self.points.items()
        }
        found = {name: float(d.max() if name.startswith("largest") else d.mean()) for name, d in apart.items()}
        shift, nmi = self._pair.local_shift_mm(matrix), self._pair.nmi(matrix)
        found |= {} if shift is None else {PARTS: shift}
        return found | ({} if nmi is None else {STS_MEASURES[-1]: nmi})


def ms_pairs(data: Path) -> list[RealPair]:
    """T1 and T2 onto FLAIR, two studies."""
    folder = data / "open_ms_data" / "longitudinal" / "raw" / "patient01"
    return [_ms_pair(folder, study, name) for study in ("study1", "study2") for name in ("T1W", "T2W")]


def sts_pairs(data: Path) -> list[RealPair]:
    """CT and MR, each patient from two starts."""
    return [
        _sts_pair(data / "sts_nifti" / f"STS_{patient}", start)
        for patient in STS_PATIENTS
        for start in range(STS_STARTS)
    ]


def pet_pairs(data: Path) -> list[RealPair]:
    """PET and CT of one scan, each patient from two starts."""
    told = ("PET", "PT", PET_TITLE, PET_ABOUT, PET_MEASURES)
    return [
        _sts_pair(data / "sts_nifti" / f"STS_{patient}", start, *told)
        for patient in STS_PATIENTS
        for start in range(STS_STARTS)
    ]


def _ms_pair(folder: Path, study: str, name: str) -> RealPair:
    fixed, moving = read_image(folder / f"{study}_FLAIR.nii.gz"), read_image(folder / f"{study}_{name}.nii.gz")
    published = sitk.ReadTransform(str(folder / f"{study}_{name}_intrastudy_to_FLAIR.txt"))
    body = apply(affine_of(fixed), np.argwhere(body_mask(fixed, "MR").numpy()[0] > 0)[::101])
    points = {measure: body for measure in MS_MEASURES[:2]}
    off = off_by(np.random.default_rng(len(study + name)), body.mean(axis=0))
    moved = volume(moving.numpy(), off @ affine_of(moving))
    about = (MS_TITLE, MS_ABOUT, fixed, moved, ("MR", "MR"), matrix_from_transform(published))
    return RealPair(f"{study}_{name}", f"{study} {name}", *about, points, MS_MEASURES, off)


def _sts_pair(
    folder: Path,
    start: int,
    name: str = "MR_T1",
    modality: str = "MR",
    title: str = STS_TITLE,
    about: Sequence[str] = STS_ABOUT,
    measures: Sequence[str] = STS_MEASURES,
) -> RealPair:
    files = ("CT_image", f"{name}_image", f"{name}_mask")
    fixed, moving, tumour = (read_image(folder / f"{file}.nii.gz") for file in files)
    box = apply(affine_of(moving), np.argwhere(np.ones(moving.shape[1:]))[::97])
    region = apply(affine_of(tumour), np.argwhere(tumour.numpy()[0] > 0)[::7])
    off = off_by(np.random.default_rng(start), box.mean(axis=0))
    points = dict(zip(measures[:2], (box, region), strict=True))
    moved = volume(moving.numpy(), off @ affine_of(moving))
    images = (fixed, moved, ("CT", modality), np.eye(4))
    return RealPair(f"{folder.name}_{start}", folder.name, title, about, *images, points, measures, off)


def off_by(rng: np.random.Generator, centre: FloatArray) -> FloatArray:
    """A turn of 5-10° about a centre and a shift of 5-10 mm."""
    axis, shift = rng.normal(size=3), rng.normal(size=3)
    matrix = np.eye(4)
    turn = axis / np.linalg.norm(axis) * rng.uniform(5, 10)
    matrix[:3, :3] = Rotation.from_rotvec(turn, degrees=True).as_matrix()
    shift *= rng.uniform(5, 10) / np.linalg.norm(shift)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
    return matrix


def read_image(path: Path) -> MetaTensor:
    """A NIfTI file as (1, I, J, K) float32, RAS+."""
    image = nib.as_closest_canonical(nib.load(path))
    return volume(np.asarray(image.dataobj, dtype=np.float32)[None], image.affine)
