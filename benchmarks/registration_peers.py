"""One registration in a process of its own, by Tandem or by another library: what `registration.py` starts.

    .venv/bin/python -m benchmarks.registration_peers METHOD PAIR.npz

Reads `fixed`, `fixed_affine`, `moving`, `moving_affine`, `modalities`, and prints one line of JSON: `matrix` (4 x 4,
RAS mm, fixed to moving points), `seconds`, `cpu_s` (processor time in them, of all threads and of Tandem's child),
`import_s` (loading the library before, not in `seconds`), `peak_mb`.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk
from monai.data import MetaTensor

from pipeline.errors import CaseError
from pipeline.geometry import LPS_RAS
from pipeline.registration import RegistrationSettings, Side, method
from pipeline.registration.elastix import rigid_matrix
from pipeline.registration.process import registrar
from pipeline.registration.register import register
from pipeline.shipped import shipped
from pipeline.volumes import matrix_from_transform, to_sitk, volume

Answer = dict[str, Any]


class Stopwatch:
    """Seconds from now on, by the clock and of the processors."""

    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), _cpu_s()

    def read(self) -> Answer:
        """`seconds` and `cpu_s`."""
        return {"seconds": time.perf_counter() - self._clock, "cpu_s": _cpu_s() - self._cpu}


def _cpu_s() -> float:
    """Processor time of this process, its children, and theirs that have ended."""
    return time.process_time() + sum(sum(child.cpu_times()[:4]) for child in psutil.Process().children())


def tandem(fixed: MetaTensor, moving: MetaTensor, modalities: tuple[str, str], folder: Path) -> Answer:
    """The library's own registration with its defaults."""
    rigid = method("rigid", modalities, shipped("bundles", "register", "configs"))
    started = time.perf_counter()
    with contextlib.suppress(CaseError):  # an empty request fails as soon as itk is loaded
        registrar().run(folder, 2, 300.0)
    import_s, watch = time.perf_counter() - started, Stopwatch()
    sides = (Side(image, modality) for image, modality in zip((fixed, moving), modalities, strict=True))
    found = register(*sides, RegistrationSettings(rigid))
    answer = {"matrix": found.warp.matrix, "import_s": import_s, **watch.read()}
    registrar().close()
    return {**answer, "verdict": found.quality["verdict"], "local_shift_mm": found.quality["local_shift_mm"]}


def elastix_default(fixed: MetaTensor, moving: MetaTensor, modalities: tuple[str, str], folder: Path) -> Answer:
    """`itk.elastix_registration_method` with elastix' default rigid map."""
    for name, image in (("fixed", fixed), ("moving", moving)):
        sitk.WriteImage(sitk.Cast(to_sitk(image), sitk.sitkFloat32), str(folder / f"{name}.mha"))
    started = time.perf_counter()
    import itk

    itk.ElastixRegistrationMethod, itk.ParameterObject  # noqa: B018 - the access builds the wrappers
    images = [itk.imread(str(folder / f"{name}.mha"), itk.F) for name in ("fixed", "moving")]
    import_s, watch = time.perf_counter() - started, Stopwatch()
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap("rigid"))
    registration = itk.ElastixRegistrationMethod.New(*images)
    registration.SetParameterObject(parameters)
    registration.SetLogToConsole(False)
    registration.UpdateLargestPossibleRegion()
    costs = watch.read()
    matrix = LPS_RAS @ rigid_matrix(registration.GetCombinationTransform()) @ LPS_RAS
    return {"matrix": matrix, "import_s": import_s, **costs}


def simpleitk(fixed: MetaTensor, moving: MetaTensor, modalities: tuple[str, str], folder: Path) -> Answer:
    """SimpleITK's own method: Mattes MI, Euler angles, three levels, centred by moments."""
    watch = Stopwatch()
    images = [sitk.Cast(to_sitk(image), sitk.sitkFloat32) for image in (fixed, moving)]
    kind = sitk.CenteredTransformInitializerFilter.MOMENTS
    # the air of a CT is far below 0 HU, and moments need weights that are not negative
    weights = [sitk.Cast(image - float(sitk.GetArrayViewFromImage(image).min()), sitk.sitkFloat32) for image in images]
    start = sitk.CenteredTransformInitializer(*weights, sitk.Euler3DTransform(), kind)
    registration = sitk.ImageRegistrationMethod()
    registration.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    registration.SetMetricSamplingStrategy(registration.RANDOM)
    registration.SetMetricSamplingPercentage(0.1, seed=1)
    registration.SetInterpolator(sitk.sitkLinear)
    registration.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 300)
    registration.SetOptimizerScalesFromPhysicalShift()
    registration.SetShrinkFactorsPerLevel([4, 2, 1])
    registration.SetSmoothingSigmasPerLevel([2, 1, 0])
    registration.SetInitialTransform(start, inPlace=False)
    found = registration.Execute(*images)
    matrix = LPS_RAS @ rigid_matrix(found) @ LPS_RAS
    return {"matrix": matrix, "import_s": 0.0, **watch.read()}


def ants(fixed: MetaTensor, moving: MetaTensor, modalities: tuple[str, str], folder: Path) -> Answer:
    """`ants.registration(type_of_transform="Rigid")`."""
    paths = [str(folder / f"{name}.nii.gz") for name in ("fixed", "moving")]
    for path, image in zip(paths, (fixed, moving), strict=True):
        sitk.WriteImage(sitk.Cast(to_sitk(image), sitk.sitkFloat32), path)
    started = time.perf_counter()
    import ants as library

    images = [library.image_read(path) for path in paths]
    import_s, watch = time.perf_counter() - started, Stopwatch()
    found = library.registration(*images, type_of_transform="Rigid", random_seed=1)
    costs = watch.read()
    matrix = matrix_from_transform(sitk.ReadTransform(found["fwdtransforms"][0]))
    return {"matrix": matrix, "import_s": import_s, **costs}


METHODS: dict[str, Callable[..., Answer]] = {
    "tandem": tandem,
    "elastix_default": elastix_default,
    "simpleitk": simpleitk,
    "ants": ants,
}


def main(name: str, path: Path) -> None:
    """Run one method on one pair."""
    with np.load(path) as pair, tempfile.TemporaryDirectory() as folder:
        images = [volume(pair[side], pair[f"{side}_affine"]) for side in ("fixed", "moving")]
        answer = METHODS[name](*images, tuple(pair["modalities"].tolist()), Path(folder))
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak_mb = (own + (children if name == "tandem" else 0)) / 1024
    print(json.dumps({**answer, "matrix": np.asarray(answer["matrix"]).tolist(), "peak_mb": peak_mb}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
