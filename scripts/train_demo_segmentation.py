"""Make the demo's segmentation model: a small nnU-Net for brain and lesions of simulated heads, judged on others.

    .venv/bin/python -m scripts.train_demo_segmentation OUT [--ship]

OUT takes the cases, nnU-Net's data set and its results. Two sets of patients are simulated, none of them of the demo's
own cohort: to learn from, and to judge by. Every draw is seeded. Prints the Dice that the model's card states; `--ship`
puts the model, lean, into bundles/segment/models/demo_head.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import numpy.typing as npt
import typer

from pipeline.commands.convert import convert_nnunet
from pipeline.commands.segment import segment
from pipeline.commands.typed import script
from pipeline.segmentation.tasks import Planning, Training, TrainingSettings
from pipeline.segmentation.weights import CHECKPOINT, describe, load_checkpoint, write_lean
from pipeline.segmentation.workspace import plans_name
from pipeline.shipped import shipped
from scripts.head_files import write_head_cases

#: The demo's cohort is drawn with the seed 0.
SEED, SPACING_MM = 2611, 3.0
#: Number of the first patient to judge by.
JUDGED_FROM = 2000
LABELS = ("brain", "lesion")
SPEC = """\
name: demo-head
description: Simulated heads, CT and MR on one grid, with the brain and its lesions.
roles:
  ct: {modality: CT, files: "{case}_ct.nii.gz"}
  mr: {modality: MR, files: "{case}_mr.nii.gz"}
masks:
  anatomy: {of: ct, files: "{case}_anatomy.nii.gz", values: {brain: 1, lesion: 2}}
segment:
  channels: {ct: CT, mr: T1}
  label: anatomy
"""


def main(
    out: Path,
    cases: Annotated[int, typer.Option(help="To learn from.")] = 200,
    judged: Annotated[int, typer.Option(help="To judge by.")] = 60,
    epochs: Annotated[int, typer.Option(help="Of 50 steps.")] = 100,
    steps: Annotated[int, typer.Option(help="In an epoch.")] = 50,
    ship: Annotated[bool, typer.Option("--ship", help="Put the model into the bundle.")] = False,
) -> None:
    """Simulate, train, judge."""
    begun = time.monotonic()
    (out / "spec").mkdir(parents=True, exist_ok=True)
    (out / "spec" / "demo-head.yaml").write_text(SPEC)
    heads = {"learned": range(cases), "judged": range(JUDGED_FROM, JUDGED_FROM + judged)}
    for part, numbers in heads.items():
        write_head_cases(out / part, "cases.csv", numbers, 5, SEED, SPACING_MM)
    raw = out / "raw" / "Dataset502_DemoHead"
    if not raw.is_dir():
        learned = (out / "learned").resolve()
        patterns = [f"ct={learned}/{{case}}_ct.nii.gz", f"mr={learned}/{{case}}_mr.nii.gz"]
        patterns.append(f"anatomy={learned}/{{case}}_anatomy.nii.gz")
        convert_nnunet(out / "raw", 502, "DemoHead", spec=out / "spec" / "demo-head.yaml", nifti=patterns)
    place = str(out / "nnunet")
    settings = TrainingSettings(
        epochs=epochs,
        iterations=steps,
        val_iterations=1,
        optimizer="adamw",
        rate=0.002,
        mirror_axes=(2,),
        bfloat16=True,
    )
    Planning(str(raw), place, preset="small", configurations=["3d_fullres"], patch=(32, 48, 48)).run()
    training = Training(str(raw), place, settings, preset="small", folds=["all"])
    training.run()
    model = training.workspace.model(plans_name("small"), "3d_fullres")
    scores = np.array(list(_scores(model, out, heads["judged"])))
    for name, dice in zip(LABELS, scores.T, strict=True):
        typer.echo(f"Dice of {name} on {judged} other heads: mean {dice.mean():.3f}, least {dice.min():.3f}")
    typer.echo(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    if ship:
        _ship(model, shipped("bundles", "segment", "models", "demo_head"))


def _scores(model: Path, out: Path, numbers: range) -> Iterator[list[float]]:
    """Dice of each label of each head."""
    for number in numbers:
        name = f"head-{number:04d}"
        images = [f"{role}={out / 'judged' / f'{name}_{role}.nii.gz'}" for role in ("ct", "mr")]
        segment(images, model, out / "segmented" / name, mirroring=False, dicom_seg=False, keep_names=True)
        labels = next((out / "segmented" / name).glob("*.nii.gz"))
        found, truth = (
            np.asarray(nib.load(path).dataobj) for path in (labels, out / "judged" / f"{name}_anatomy.nii.gz")
        )
        yield [_dice(found == value, truth == value) for value in range(1, len(LABELS) + 1)]


def _dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / max(1, int(one.sum() + other.sum()))


def _ship(model: Path, folder: Path) -> None:
    """The model as `tandem weights add` would keep it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "fold_all").mkdir(parents=True)
    write_lean(load_checkpoint(model / "fold_all" / CHECKPOINT), folder / "fold_all" / CHECKPOINT)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(model / name, folder / name)
    describe(folder, {"spec": "simulated_head", "channels": ["ct", "mr"], "label_map": {"1": 1, "2": 2}})


if __name__ == "__main__":
    script(main)
