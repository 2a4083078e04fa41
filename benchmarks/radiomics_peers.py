"""The features of one region in a process of its own, by Tandem or by another library: what `radiomics.py` starts.

    python -m benchmarks.radiomics_peers METHOD FOLDER REPEATS [PEERS]

FOLDER holds `image.nii` and `mask.nii` (label 1); PEERS is a folder of libraries, put after those of the interpreter.
It prints one line of JSON: `import_s` (loading the library), `seconds` (the least of the repeats, beside it), both of
the processor; `peak_mb` of memory; `values` by the library's own names. MIRP reads the files itself within `seconds`.
Only numpy and nibabel are needed beside the library, so that another interpreter can run it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

Values = dict[str, Any]
#: Loads the library and the files, and gives what is timed.
Method = Callable[[Path], Callable[[], Values]]
BINS, IVH_BINS = 32, 1000
#: Features that are mapped.
MAPPED = (
    *("cm_joint_entr_3D_avg", "cm_joint_entr_3D_comb", "rlm_sre_3D_avg", "szm_sze_3D", "dzm_sde_3D", "ngt_contrast_3D"),
    *("ngl_lde_3D", "stat_mean", "ih_entropy"),
)
#: z-rad's words for an aggregation, and what is asked of it: matrices without directions are averaged only.
DIRECTED = ("glcm", "glrlm")
TEXTURE = (*DIRECTED, "glszm", "gldzm", "ngtdm", "ngldm")
ZRAD_WAYS: tuple[tuple[str, str, str | tuple[str, ...]], ...] = (
    ("3D", "AVER", "all"),
    ("3D", "MERG", DIRECTED),
    ("2D", "AVER", TEXTURE),
    ("2D", "SLICE_MERG", DIRECTED),
    ("2.5D", "DIR_MERG", TEXTURE),
    ("2.5D", "MERG", DIRECTED),
)


def tandem(folder: Path, *aggregations: str) -> Callable[[], Values]:
    """All 482 values, or those of some aggregations."""
    from pipeline.radiomics import Settings, extract

    image, mask = (nib.load(folder / f"{name}.nii") for name in ("image", "mask"))
    arrays = image.get_fdata(), np.asarray(mask.dataobj)
    settings = Settings.read({"aggregations": aggregations} if aggregations else {})
    return lambda: dict(extract(*arrays, image.affine, settings).values)


def tandem_space(folder: Path) -> Callable[[], Values]:
    """3D merged."""
    return tandem(folder, "3D_comb")


def tandem_map(folder: Path, tag: str) -> Callable[[], Values]:
    """The mean of a map, radius 1, at the memory it takes by default."""
    from pipeline.radiomics import Settings, feature_maps

    image, mask = (nib.load(folder / f"{name}.nii") for name in ("image", "mask"))
    arrays = image.get_fdata(), np.asarray(mask.dataobj)
    return lambda: {tag: np.nanmean(feature_maps(*arrays, image.affine, Settings(), [tag]).values[tag])}


def zrad(folder: Path, ways: tuple[tuple[str, str, str | tuple[str, ...]], ...] = ZRAD_WAYS) -> Callable[[], Values]:
    """Everything once, then the other aggregations of texture."""
    image_kind = importlib.import_module("zrad.image").Image
    steps = importlib.import_module("zrad.preprocessing")
    extractor = importlib.import_module("zrad.radiomics").Radiomics
    refusal = importlib.import_module("zrad.exceptions").DataStructureError
    image = image_kind.from_nifti(str(folder / "image.nii"))
    mask = image_kind.from_nifti_mask(str(folder / "mask.nii"), reference=image)

    def run() -> Values:
        region = steps.RoiData(image=image, morphological_mask=mask)
        for step in (
            steps.IntensityMaskBuilder(),
            steps.TextureDiscretizer(number_of_bins=BINS),
            steps.IVHIntensityDiscretizer("fixed_bin_number", number_of_bins=IVH_BINS),
        ):
            region = step.apply(region)
        found: Values = {}
        for dimension, method, families in ways:
            try:
                found |= extractor(dimension, method).extract_features(roi_data=region, families=families)
            except refusal as error:  # of an aggregation: the others are measured
                print(f"{dimension} {method}: {error}", file=sys.stderr)
        return found

    return run


def zrad_space(folder: Path) -> Callable[[], Values]:
    """3D averaged only, its default."""
    return zrad(folder, ZRAD_WAYS[:1])


def mirp(folder: Path) -> Callable[[], Values]:
    """3D merged, its default; Moran and Geary of pairs drawn at random, its default too."""
    library = importlib.import_module("mirp")
    options = {
        "base_feature_families": "all",
        "base_discretisation_method": "fixed_bin_number",
        "base_discretisation_n_bins": BINS,
        "export_features": True,
    }

    def run() -> Values:
        files = {"image": str(folder / "image.nii"), "mask": str(folder / "mask.nii")}
        table = library.extract_features(**files, **options)[0]
        first = list(table.columns).index("morph_volume")
        return {name: float(table[name].iloc[0]) for name in table.columns[first:]}

    return run


def pyradiomics(folder: Path) -> Callable[[], Values]:
    """Its defaults: 3D averaged, without filters."""
    library = importlib.import_module("radiomics.featureextractor")
    sitk = importlib.import_module("SimpleITK")
    images = [sitk.ReadImage(str(folder / f"{name}.nii")) for name in ("image", "mask")]
    extractor = library.RadiomicsFeatureExtractor(binCount=BINS, additionalInfo=False)
    return lambda: {name: float(value) for name, value in extractor.execute(*images).items()}


def pictologics(folder: Path) -> Callable[[], Values]:
    """3D merged, its only way."""
    library = importlib.import_module("pictologics")
    image, mask = (library.load_image(str(folder / f"{name}.nii")) for name in ("image", "mask"))
    pipeline = library.RadiomicsPipeline()
    families = ["intensity", "morphology", "texture", "histogram", "ivh", "spatial_intensity", "local_intensity"]
    steps = [
        {"step": "discretise", "params": {"method": "FBN", "n_bins": BINS}},
        {"step": "extract_features", "params": {"families": families}},
    ]
    pipeline.add_config("plain", steps)
    return lambda: dict(pipeline.run(image, mask, config_names=["plain"])["plain"])


METHODS: dict[str, Method] = {
    "tandem": tandem,
    "tandem_space": tandem_space,
    **{f"map_{tag}": partial(tandem_map, tag=tag) for tag in MAPPED},
    "zrad": zrad,
    "zrad_space": zrad_space,
    "mirp": mirp,
    "pyradiomics": pyradiomics,
    "pictologics": pictologics,
}


def main(name: str, folder: Path, repeats: int, peers: str = "") -> None:
    """Run one method on one region."""
    sys.path += [peers] if peers else []
    started = time.process_time()
    try:
        run = METHODS[name](folder)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return
    import_s, seconds = time.process_time() - started, []
    values: Values = {}
    for _ in range(repeats):
        started = time.process_time()
        values = run()
        seconds.append(time.process_time() - started)
    finite = {tag: float(value) for tag, value in values.items() if value is not None and np.isfinite(float(value))}
    print(json.dumps({"import_s": import_s, "seconds": min(seconds), "peak_mb": peak_mb(), "values": finite}))


def peak_mb() -> float:
    """The most memory that was resident; `getrusage` would count what the starting process had, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
