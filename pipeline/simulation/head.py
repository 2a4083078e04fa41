"""The simulated head: what tissue lies where, in the space of the MNI152 template.

Brain tissue comes from the MNI152 probability maps that nilearn ships; CSF and skull are shells by distance from the
brain, fat is a shell below the skin, muscle fills the rest; face and neck are ellipsoids. A head is sampled at any
point, so an image on any grid is one sampling away from the template. Points are RAS, mm, of the MNI space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.measure import block_reduce

from pipeline import geometry, volumes
from pipeline.errors import UsageError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid.

    Attributes:
        centre_mm: x, y, z.
        radii_mm: semi-axes.
        angles_deg: rotation about the fixed x, y, z axes, in this order.
    """

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def distance_mm(self, points: npt.ArrayLike) -> FloatArray:
        """Distance (N,) of points (N, 3) from the surface, mm, negative inside: exact on it, to first order near it.

        Source: G. Taubin, "Distance approximations for rasterizing implicit curves", ACM TOG 1994: f / |grad f|
            with f = |q| - 1.
        """
        rotation = Rotation.from_euler("xyz", self.angles_deg, degrees=True).as_matrix()
        local = (np.asarray(points, dtype=np.float64) - self.centre_mm) @ rotation
        scaled = local / self.radii_mm
        steep = scaled / self.radii_mm
        length, slope = (np.sqrt(np.einsum("nd,nd->n", vector, vector)) for vector in (scaled, steep))
        centre = slope == 0  # at the very centre the gradient vanishes; the distance is the smallest semi-axis
        near = length * (length - 1.0) / np.where(centre, 1.0, slope)
        return np.asarray(np.where(centre, -min(self.radii_mm), near))


#: Thickness of the layers from the brain's smoothed surface outwards, mm.
SHELLS_MM: Mapping[str, float] = {"csf": 2.5, "inner_table": 1.5, "diploe": 3.0, "outer_table": 2.0}
SKULL_MM = sum(SHELLS_MM.values())
MUSCLE_MM = 3.0
FAT_MM = 4.0

#: Middle of the head in MNI space: images are centred on it.
HEAD_CENTRE_MM = (0.0, -10.0, 2.0)

# The template is padded to this box, so that face and neck fit.
_BOX_MM = ((-112.0, -152.0, -134.0), (112.0, 132.0, 122.0))
# The template's brain stem fades out in its last 2 mm; below, the medulla is continued as the spinal cord.
_FADING_MM = 2
# Distances are smooth: this grid is fine enough for images of any voxel size.
_DISTANCE_GRID_MM = 2

_FACE = (
    Ellipsoid((0.0, 36.0, -62.0), (62.0, 56.0, 72.0)),
    Ellipsoid((0.0, 92.0, -58.0), (14.0, 16.0, 22.0)),  # nose
    Ellipsoid((0.0, -40.0, -140.0), (60.0, 62.0, 140.0)),  # neck
)
_GLOBES = tuple(Ellipsoid((x, 66.0, -40.0), (12.0, 12.0, 12.0)) for x in (-32.0, 32.0))
_CAVITIES = (
    Ellipsoid((0.0, 58.0, -60.0), (9.0, 28.0, 17.0)),  # nose
    Ellipsoid((-29.0, 60.0, -69.0), (11.0, 14.0, 13.0)),  # maxillary sinuses: the two differ, as they do in people
    Ellipsoid((30.0, 59.0, -71.0), (13.0, 15.0, 15.0)),
    Ellipsoid((0.0, 14.0, -95.0), (9.0, 8.0, 40.0)),  # pharynx
)
_CAVITY_WALL_MM = 2.0


@dataclass(frozen=True)
class Field:
    """A quantity known everywhere in the head: values (I, J, K) on a grid with a 4 x 4 affine to MNI RAS mm."""

    values: npt.NDArray[np.float32]
    affine: FloatArray

    def __call__(self, points: npt.ArrayLike) -> FloatArray:
        """The values (N,) at points (N, 3), interpolated linearly; the border's values beyond the grid."""
        index = geometry.apply(np.linalg.inv(self.affine), points).T
        return np.asarray(ndimage.map_coordinates(self.values, index, np.float64, order=1, mode="nearest"))


@dataclass(frozen=True)
class HeadTemplate:
    """Fields from which the tissue at any point follows.

    Attributes:
        gray: probability of gray matter.
        white: probability of white matter.
        brain_distance_mm: distance from the brain's smoothed surface, negative inside.
        skin_distance_mm: distance from the skin, negative inside.
        cavity_distance_mm: distance from the air-filled cavities, negative inside.
        globe_distance_mm: distance from the eyeballs, negative inside.
    """

    gray: Field
    white: Field
    brain_distance_mm: Field
    skin_distance_mm: Field
    cavity_distance_mm: Field
    globe_distance_mm: Field


def load_head_template(resolution_mm: int = 2) -> HeadTemplate:
    """Build the head from nilearn's MNI152 maps; the one slow step of a cohort, so pass the result on.

    Args:
        resolution_mm: voxel size of the maps of gray and white matter: 1 for images of 1 mm, 2 for coarser ones.

    Raises:
        UsageError: E_EXTRA when nilearn is not installed.

    Source: Fonov et al., NeuroImage 2011 (MNI152 2009 nonlinear), as shipped by nilearn.
    """
    datasets = _nilearn_datasets()
    gray, white = (
        _onto_box(load(resolution=1), resolution_mm)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    brain = _onto_box(datasets.load_mni152_brain_mask(resolution=1), _DISTANCE_GRID_MM)
    brain_distance = _smooth_distance(brain.values > 0.5, brain.affine, smoothing_mm=2.0)
    points = geometry.apply(brain.affine, np.argwhere(np.ones(brain.values.shape, bool)))
    face, globes, cavities = (
        np.min([part.distance_mm(points) for part in parts], axis=0).reshape(brain.values.shape)
        for parts in (_FACE, _GLOBES, _CAVITIES)
    )
    head = np.minimum(face, brain_distance - SKULL_MM - MUSCLE_MM - FAT_MM) <= 0
    skin_distance = _smooth_distance(head, brain.affine, smoothing_mm=4.0)
    distances = (brain_distance, skin_distance, cavities, globes)
    return HeadTemplate(gray, white, *(Field(values.astype(np.float32), brain.affine) for values in distances))


def tissue_fractions(template: HeadTemplate, points: npt.ArrayLike, edge_mm: float) -> dict[str, FloatArray]:
    """What share of each tissue a voxel at each point holds; with air they sum to 1.

    Args:
        template: from `load_head_template`.
        points: (N, 3).
        edge_mm: the voxels' size: surfaces are blurred over it, as a voxel does that they cut.

    Returns:
        Tissue name -> shares (N,). `air` is left out.
    """
    skin_distance = template.skin_distance_mm(points)
    brain_distance = template.brain_distance_mm(points)
    shells = _shells(brain_distance, edge_mm)
    gray, white = (field(points) * shells["csf"] for field in (template.gray, template.white))
    fractions = {"gray": gray, "white": white, "csf": np.clip(shells["csf"] - gray - white, 0.0, None)}
    fractions["cortical"] = shells["inner_table"] + shells["outer_table"]
    fractions["diploe"] = shells["diploe"]
    soft = np.clip(1.0 - _ramp(skin_distance, edge_mm) - sum(shells.values()), 0.0, None)
    cavity_distance = template.cavity_distance_mm(points)
    air = 1.0 - _ramp(cavity_distance, edge_mm)
    wall = 1.0 - _ramp(cavity_distance - _CAVITY_WALL_MM, edge_mm) - air
    globe = (1.0 - _ramp(template.globe_distance_mm(points), edge_mm)) * (1.0 - air - wall)
    fractions["cortical"] = fractions["cortical"] + soft * wall
    fractions["csf"] = fractions["csf"] + soft * globe  # the vitreous body looks like CSF in CT and MR
    soft = soft * (1.0 - air - wall - globe)
    fat = _ramp(skin_distance + FAT_MM, edge_mm)
    return {**fractions, "fat": soft * fat, "muscle": soft * (1.0 - fat)}


def _shells(distance_mm: FloatArray, edge_mm: float) -> dict[str, FloatArray]:
    """Shares of the layers around the brain; `csf` holds everything inside the skull."""
    edges = np.cumsum(list(SHELLS_MM.values()))
    within = [1.0 - _ramp(distance_mm - edge, edge_mm) for edge in edges]
    shares = [within[0], *(outer - inner for inner, outer in pairwise(within))]
    return dict(zip(SHELLS_MM, shares, strict=True))


def _ramp(distance_mm: FloatArray, edge_mm: float) -> FloatArray:
    """Share of a voxel that lies outside a plane at this distance: 0 to 1 over one voxel."""
    return np.clip(0.5 + distance_mm / edge_mm, 0.0, 1.0)


def _smooth_distance(mask: npt.NDArray[np.bool_], affine: FloatArray, smoothing_mm: float) -> npt.NDArray[np.float32]:
    """Distance in mm from the border of a mask (I, J, K) whose shape is smoothed first; negative inside."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), smoothing_mm / geometry.spacing_mm(affine)) > 0.5
    # The filter measures from the centres of the border voxels inside the mask. The border itself lies half way to
    # those outside, in whatever direction it runs: hence the mean of the distances from either side.
    sides = [_distance_mm(smooth, affine), -_distance_mm(~smooth, affine)]
    return np.asarray(ndimage.gaussian_filter(np.mean(sides, axis=0), 1.0))


def _distance_mm(mask: npt.NDArray[np.bool_], affine: FloatArray) -> npt.NDArray[np.float32]:
    image = volumes.to_sitk(volumes.volume(mask.astype(np.uint8), affine))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.asarray(volumes.from_sitk(distance).numpy()[0])


def _nilearn_datasets() -> Any:
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UsageError(
            "E_EXTRA", "The simulated head needs nilearn, got no such package: pip install 'tandem-imaging[demo]'."
        ) from error
    return datasets


def _onto_box(image: Any, block_mm: int) -> Field:
    """Average one of nilearn's images of 1 mm over blocks, and continue its edges over the box."""
    first = np.asarray(image.affine, dtype=np.float64)[:3, 3] + [0.0, 0.0, _FADING_MM] + (block_mm - 1) / 2.0
    values = block_reduce(image.get_fdata(dtype=np.float32)[:, :, _FADING_MM:], block_mm, np.mean)
    before = np.ceil((first - _BOX_MM[0]) / block_mm).astype(int)
    after = np.ceil((np.asarray(_BOX_MM[1]) - first) / block_mm).astype(int) - values.shape + 1
    affine = np.diag([block_mm, block_mm, block_mm, 1.0])
    affine[:3, 3] = first - before * block_mm
    width = np.clip(np.stack([before, after], axis=1), 0, None)
    return Field(np.pad(values, width, mode="edge").astype(np.float32), affine)
