"""Elastix on one pair of images, in the registration's child process. All matrices are 4 x 4, LPS mm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from pipeline.geometry import FloatArray, matrix_of
from pipeline.registration.coarse import index_to_world

#: The coarsest level of the pyramid: what is left of a head at it still has some 15 voxels along each axis.
COARSEST_MM = 10.0
#: No level has fewer voxels than this along an axis that has more to begin with.
LEAST_VOXELS = 8
#: How far outside the moving image, as a pose shows it, samples are still taken: the pose is going to move.
VIEW_MARGIN_MM = 15.0
#: One of so many iterations is kept in the log.
LOG_EVERY = 100
POINTS = ("fixed_points.txt", "moving_points.txt")
LOG = "runs.txt"
_KEPT = ("Resolution:", "Stopping condition", "Final metric value")


def load() -> None:
    """Import the wrappers that a registration uses, which takes some 2 s; starts no thread.

    They are imported by the modules that hold them (itk and itk-elastix are pinned): `itk.ElastixRegistrationMethod`
    would first load all that elastix may be used with, which takes ten times as long and a gigabyte.
    """
    from itk.support import helpers

    helpers._HAVE_TORCH = False  # or each class would ask PyTorch, whose import takes as long again, for its tensors
    for name in ("itkElastixRegistrationMethod", "elxParameterObject", "itkImageFileReader", "itkMetaImageIO"):
        wrapped(name)


def wrapped(name: str) -> Any:
    """A module of itk's wrappers, without the modules that it does not need itself."""
    return import_module(f"itk.{name}Python")


def read_image(path: Path, pixel: Literal["F", "UC"] = "F") -> Any:
    """An `itk.Image` (3D) of a MetaImage; its pixels are floats, or bytes."""
    reader = getattr(wrapped("itkImageFileReader"), f"itkImageFileReaderI{pixel}3").New()
    reader.SetImageIO(wrapped("itkMetaImageIO").itkMetaImageIO.New())
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


class Elastix:
    """Runs elastix on one pair of images.

    Args:
        folder: holds `fixed.mha` and `moving.mha`, and the landmarks (`POINTS`) where they count; takes `LOG`.
        fixed: the fixed image.
        moving: the moving image.
        fixed_mask: the fixed body with a rim of air.
        landmark_weight: of the landmarks' distance beside the image metric; 0: they do not count.
    """

    def __init__(
        self, folder: Path, fixed: sitk.Image, moving: sitk.Image, fixed_mask: sitk.Image, landmark_weight: float = 0.0
    ) -> None:
        self._folder = folder
        self._fixed, self._moving = (read_image(folder / f"{name}.mha") for name in ("fixed", "moving"))
        self._images = (fixed, moving)
        self._fixed_mask = fixed_mask
        self._landmark_weight = landmark_weight

    def parameters(self, file: str, number: int = 0, first: int = 0) -> Any:
        """A parameter file with the pyramid that suits the voxels.

        Args:
            file: name of the file in the folder.
            number: of the start; every start draws other random samples.
            first: first level of the pyramid to run; -1: the finest alone.
        """
        parameters = wrapped("elxParameterObject").elastixParameterObject.New()
        parameters.ReadParameterFile(str(self._folder / file))
        levels = int(parameters.GetParameter(0, "NumberOfResolutions")[0])
        for name, image in zip(("Fixed", "Moving"), self._images, strict=True):
            factors = pyramid(image.GetSpacing(), image.GetSize(), levels)[first:]
            parameters.SetParameter(0, "NumberOfResolutions", [str(len(factors))])
            schedule = [str(factor) for level in factors for factor in level]
            parameters.SetParameter(0, f"{name}ImagePyramidSchedule", schedule)
        # Starts that drew the same random samples would agree with each other even where the optimum is flat.
        seed = int(parameters.GetParameter(0, "RandomSeed")[0])
        parameters.SetParameter(0, "RandomSeed", [str(seed + number)])
        if self._landmark_weight:
            _add_landmarks(parameters, self._landmark_weight)
        return parameters

    def run(self, name: str, parameters: Any, start: FloatArray) -> Any:
        """Run elastix from a linear map.

        Args:
            name: what the log calls this run.
            parameters: one parameter map.
            start: from fixed to moving points.

        Returns:
            The finished `itk.ElastixRegistrationMethod`.

        Raises:
            RuntimeError: elastix gave up.
        """
        method = self._method(self._moving, parameters, start)
        method.SetInitialTransformParameterFileName(str(self._start_file(start)))
        if self._landmark_weight:
            self._set_points(method, np.eye(4))
        return self._update(name, method)

    def bend(self, name: str, parameters: Any, start: FloatArray) -> Any:
        """Run elastix on the moving image as a linear map places it: what is found is a map of the fixed image's space.

        The moving image's geometry is changed, not its voxels. (With the map as an initial transform the bending energy
        takes some ten times as long.)

        Args:
            name: what the log calls this run.
            parameters: one parameter map.
            start: from fixed to moving points.

        Returns:
            The finished `itk.ElastixRegistrationMethod`; its transform goes before the linear map.

        Raises:
            RuntimeError: elastix gave up.
        """
        method = self._method(self._placed(start), parameters, start)
        if self._landmark_weight:
            self._set_points(method, np.asarray(np.linalg.inv(start), np.float64))
        return self._update(name, method)

    def _method(self, moving: Any, parameters: Any, start: FloatArray) -> Any:
        module = wrapped("itkElastixRegistrationMethod")
        method = module.itkElastixRegistrationMethodIF3IF3.New(self._fixed, moving)
        method.SetFixedMask(self._mask_in_view(start))
        method.SetParameterObject(parameters)
        method.SetOutputDirectory(str(self._folder))
        method.SetLogFileName("elastix.log")
        method.SetLogToFile(True)
        method.SetLogToConsole(False)
        return method

    def _update(self, name: str, method: Any) -> Any:
        written = self._folder / "elastix.log"
        try:
            method.UpdateLargestPossibleRegion()
        except RuntimeError as error:
            # elastix' own message says only that its log knows more
            raise RuntimeError(last_error(written.read_text(errors="replace"))) from error
        finally:
            # the next run writes the log anew
            self.note(name, digest(written.read_text(errors="replace")))
        return method

    def note(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to the log under a heading."""
        with (self._folder / LOG).open("a", encoding="utf-8") as log:
            log.write("\n".join([f"== {name}", *lines, ""]))

    def _placed(self, matrix: FloatArray) -> Any:
        """The moving image in the fixed image's space."""
        turned = np.linalg.inv(matrix[:3, :3]) @ index_to_world(self._images[1])[:3, :3]
        spacing = np.linalg.norm(turned, axis=0)
        placed = read_image(self._folder / "moving.mha")  # a copy of its own, whose geometry may change
        placed.SetSpacing(spacing.tolist())
        placed.SetOrigin((np.linalg.inv(matrix) @ [*self._images[1].GetOrigin(), 1.0])[:3].tolist())
        direction = wrapped("vnl_matrix_fixed").vnl_matrix_fixedD_3_3()
        for (row, column), number in np.ndenumerate(turned / spacing):
            direction.put(row, column, float(number))
        placed.SetDirection(wrapped("itkMatrix").itkMatrixD33(direction))
        return placed

    def _set_points(self, method: Any, placed: FloatArray) -> None:
        """Give elastix the landmarks; those of the moving image where `placed` brings them."""
        moving = np.loadtxt(self._folder / POINTS[1], skiprows=2)
        file = self._folder / "placed_points.txt"
        numbers = moving @ placed[:3, :3].T + placed[:3, 3]
        lines = [" ".join(repr(float(number)) for number in point) for point in numbers]
        file.write_text("\n".join(["point", str(len(lines)), *lines, ""]))
        method.SetFixedPointSetFileName(str(self._folder / POINTS[0]))
        method.SetMovingPointSetFileName(str(file))

    def _start_file(self, matrix: FloatArray) -> Path:
        """The start as elastix' own kind of transform: the bending energy needs derivatives that others do not give."""
        numbers = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
        lines = {
            "Transform": '"AffineTransform"',
            "NumberOfParameters": "12",
            "TransformParameters": " ".join(repr(float(number)) for number in numbers),
            "CenterOfRotationPoint": "0 0 0",
            "InitialTransformParameterFileName": '"NoInitialTransform"',
            "HowToCombineTransforms": '"Compose"',
            **dict.fromkeys(("FixedImageDimension", "MovingImageDimension"), "3"),
            **dict.fromkeys(("FixedInternalImagePixelType", "MovingInternalImagePixelType"), '"float"'),
        }
        path = self._folder / "start.txt"
        path.write_text("".join(f"({name} {value})\n" for name, value in lines.items()))
        return path

    def _mask_in_view(self, pose: FloatArray) -> Any:
        """The fixed mask where a pose brings it into the moving image or near it: no samples are wasted elsewhere."""
        moving = self._images[1]
        everywhere = sitk.Image(moving.GetSize(), sitk.sitkUInt8) + 1
        everywhere.CopyInformation(moving)
        margin = [round(VIEW_MARGIN_MM / step) for step in moving.GetSpacing()]
        wider = sitk.ConstantPad(everywhere, margin, margin, 1)
        transform = sitk.AffineTransform(3)
        transform.SetMatrix(pose[:3, :3].ravel().tolist())
        transform.SetTranslation(pose[:3, 3].tolist())
        view = sitk.Resample(wider, self._fixed_mask, transform, sitk.sitkNearestNeighbor, 0)
        path = self._folder / "mask_in_view.mha"
        sitk.WriteImage(self._fixed_mask * view, str(path))
        return read_image(path, "UC")


def pyramid(spacing_mm: Sequence[float], size: Sequence[int], levels: int) -> list[list[int]]:
    """Shrink factors for each level and axis: from about `COARSEST_MM` down to the image's own voxels.

    Args:
        spacing_mm: voxel size along each axis.
        size: voxels along each axis.
        levels: how many levels.

    Returns:
        `levels` lists of a factor for each axis; the last is all ones.
    """
    finest = min(spacing_mm)
    targets = np.geomspace(finest, max(COARSEST_MM, finest), levels)[::-1]
    return [
        [min(max(1, round(target / s)), max(1, n // LEAST_VOXELS)) for s, n in zip(spacing_mm, size, strict=True)]
        for target in targets
    ]


def digest(log: str) -> list[str]:
    """The lines of an elastix log that say how it went, without times, paths and settings.

    Args:
        log: text of `elastix.log`.

    Returns:
        Levels, every `LOG_EVERY`th iteration (number, metric, step, …), reasons to stop, errors.
    """
    errors = [f"Error: {last_error(log)}"] if "Description:" in log else []
    return [*_digest(log.splitlines()), *errors]


def _digest(lines: Sequence[str]) -> Iterator[str]:
    timeless: list[int] = []
    for line in lines:
        cells = line.split("\t")
        if line.startswith(_KEPT):
            yield line.strip()
        elif cells[0] == "1:ItNr":
            timeless = [number for number, name in enumerate(cells) if "[ms]" not in name]
        elif len(cells) > 2 and cells[0].isdigit() and int(cells[0]) % LOG_EVERY == 0:
            yield "\t".join(cells[number] for number in timeless)


def last_error(log: str) -> str:
    """The last error of an elastix log, without the addresses that change from run to run."""
    found = [line.partition(":")[2].strip() for line in log.splitlines() if line.startswith("Description:")]
    return re.sub(r"\(0x[0-9a-f]+\)", "", found[-1]) if found else "no message"


def rigid_matrix(transform: Any) -> FloatArray:
    """The 4 x 4 matrix of a rigid (or mirrored) ITK transform; its rotation is made orthogonal to the last bit."""
    matrix = matrix_of(transform.TransformPoint)
    left, _, right = np.linalg.svd(matrix[:3, :3])
    matrix[:3, :3] = left @ right
    return matrix


def spline_of(method: Any) -> dict[str, FloatArray]:
    """The B-spline that a finished run has found, as ITK's `BSplineTransform` takes it.

    Returns:
        `fixed` (18 numbers: control points along each axis, origin, spacing, direction; LPS mm) and `parameters`
        (their displacements, mm).
    """
    found = method.GetTransformParameterObject()

    def numbers(name: str) -> list[float]:
        return [float(text) for text in found.GetParameter(0, name)]

    # elastix lists the direction by columns, ITK's fixed parameters by rows
    direction = np.reshape(numbers("GridDirection"), (3, 3)).T.ravel()
    fixed = [*numbers("GridSize"), *numbers("GridOrigin"), *numbers("GridSpacing"), *direction]
    return {"fixed": np.array(fixed), "parameters": np.array(numbers("TransformParameters"))}


def _add_landmarks(parameters: Any, weight: float) -> None:
    """Make the landmarks' distance one more metric; elastix wants it as the last one."""
    metrics = [*parameters.GetParameter(0, "Metric"), "CorrespondingPointsEuclideanDistanceMetric"]
    parameters.SetParameter(0, "Registration", ["MultiMetricMultiResolutionRegistration"])
    parameters.SetParameter(0, "Metric", metrics)
    parameters.SetParameter(0, f"Metric{len(metrics) - 1}Weight", [str(weight)])
