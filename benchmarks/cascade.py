"""A cascade trained whole: 3d_lowres, then 3d_cascade_fullres, judged out of fold and used by `tandem segment`.

    python -m benchmarks.cascade OUT

Simulated volumes, so large that nnU-Net plans a cascade. Two organs look alike, and each is told by which side of the
midline it lies on: a network that sees small pieces at full resolution cannot know, one that sees the whole can. Few
cases and short trainings: it shows that the stages fit together, not what a cascade is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
import yaml

from benchmarks.training_folds import Course, show_times, tandem, timed, trained_and_judged
from pipeline.console import echo
from pipeline.segmentation.workspace import Workspace, plans_name

CASCADE = ("3d_lowres", "3d_cascade_fullres")
RECIPE = {"optimizer": "adamw", "rate": 0.002, "bfloat16": True, "val_iterations": 1, "mirror_axes": "[]"}
SPEC = {
    "name": "two_organs",
    "description": "Simulated volumes with two organs that look alike.",
    "roles": {"mr": {"modality": "MR", "files": "{case}_mr.nii.gz"}},
    "masks": {"organs": {"of": "mr", "files": "{case}_organs.nii.gz", "values": {"right": 1, "left": 2}}},
    "segment": {"channels": {"mr": "MR"}, "label": "organs"},
}


def main(
    out: Path,
    cases: Annotated[int, typer.Option(help="Volumes, half of which are held out in turn.")] = 4,
    side: Annotated[int, typer.Option(help="Voxels of 1 mm along each side.")] = 288,
    iterations: Annotated[int, typer.Option(help="Of each training of the first stage.")] = 150,
    second: Annotated[int, typer.Option(help="Of the second, whose augmentation takes 10 s and more a step.")] = 20,
) -> None:
    """Make the volumes, train both stages in two folds, print the Dice of each, and segment a new volume."""
    source, raw = out / "source", out / "raw"
    for number in range(cases + 1):
        write_case(source if number < cases else out / "new", f"case{number}", side, number)
    (out / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    files = [word for key in ("mr", "organs") for word in ("--nifti", f"{key}={source}/{{case}}_{key}.nii.gz")]
    given = ("--dataset", "503", "--name", "TwoOrgans", "--out", raw, "--folds", "2", "--spec", out / "spec.yaml")
    took = {"conversion": timed(tandem("convert", "nnunet", *files, *given))}
    course = Course(2, iterations, 1, RECIPE, CASCADE, other_iterations={CASCADE[1]: second})
    dataset = raw / "Dataset503_TwoOrgans"
    took |= trained_and_judged(dataset, out / "nnunet", "unet", course)
    model = Workspace(dataset, out / "nnunet").model(plans_name("small", "unet"), CASCADE[-1])
    image = out / "new" / f"case{cases}_mr.nii.gz"
    words = ("segment", "-i", image, "-m", model, "-o", out / "segmented", "--keep-names", "--no-mirroring")
    took["a new volume"] = timed(tandem(*words))
    found, truth = (
        np.asarray(nib.load(path).dataobj)
        for path in (out / "segmented" / f"case{cases}_mr.nii.gz", out / "new" / f"case{cases}_organs.nii.gz")
    )
    for value, name in enumerate(("right", "left"), start=1):
        both = 2 * float(((found == value) & (truth == value)).sum())
        echo(f"new volume, {name}: Dice {both / max(1, int((found == value).sum() + (truth == value).sum())):.3f}")
    show_times(took)


def write_case(folder: Path, name: str, side: int, seed: int) -> None:
    """A body with an organ on either side of its midline, in noise; written as NIfTI, RAS."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32)] * 3, indexing="ij", sparse=True)
    image = 300 * ((axes[0] / 0.9) ** 2 + (axes[1] / 0.7) ** 2 + (axes[2] / 0.95) ** 2 < 1).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    for value, across in ((2, -0.45), (1, 0.45)):  # RAS: the first axis leads to the patient's right
        middle = np.array([across, 0, 0]) + random.uniform(-0.12, 0.12, 3)
        radii = random.uniform(0.16, 0.24, 3)
        labels[sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(axes, middle, radii, strict=True)) < 1] = (
            value
        )
    image += 250 * (labels > 0) + 60 * random.standard_normal(image.shape, dtype=np.float32)
    for key, values in (("mr", np.clip(image, 0, None).astype(np.int16)), ("organs", labels)):
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"{name}_{key}.nii.gz")


if __name__ == "__main__":
    typer.run(main)
