"""`tandem register`, `fuse-image`, `segment` and `radiomics` as they are typed: what can be done with single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from pipeline.commands.typed import Device, Jobs, Out, Overwrite, command, finished, names_in
from pipeline.spec.register import Transform

images_app = typer.Typer(rich_markup_mode=None)


@command(images_app)
def register(  # noqa: PLR0913 - a flag for each thing that may be known of the two images
    fixed: Annotated[Path, typer.Argument(help="The image that stays: a NIfTI file or a folder of one DICOM series.")],
    moving: Annotated[Path, typer.Argument(help="The image that is moved onto it: also a file or a folder.")],
    out: Out,
    fixed_modality: Annotated[str, typer.Option(help="Modality of a fixed NIfTI; DICOM says its own.")] = "CT",
    moving_modality: Annotated[str, typer.Option(help="Modality of a moving NIfTI; DICOM says its own.")] = "MR",
    transform: Annotated[str, typer.Option(help=f"How freely: {', '.join(get_args(Transform))}.")] = "rigid",
    parameters: Annotated[
        str | None, typer.Option(help="An elastix parameter file, or the name of a shipped one.")
    ] = None,
    fixed_mask: Annotated[Path | None, typer.Option(help="Where to look in the fixed image, on its grid.")] = None,
    moving_mask: Annotated[Path | None, typer.Option(help="Where to look in the moving image, on its grid.")] = None,
    fixed_landmarks: Annotated[
        Path | None, typer.Option(help="Landmarks in mm: .mrk.json, .fcsv, .csv with its convention, elastix' .txt.")
    ] = None,
    moving_landmarks: Annotated[Path | None, typer.Option(help="The same points of the moving image.")] = None,
    apply_to: Annotated[
        list[Path] | None, typer.Option(help="A label volume of the moving image, to be carried along; repeatable.")
    ] = None,
    fixed_label: Annotated[
        list[Path] | None, typer.Option(help="The same of the fixed image, for comparison: one for each --apply-to.")
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Align one image with another: moved image, transform and its inverse, quality verdict and a report."""
    from pipeline.commands.register import register as register_pair

    labels = {"apply_to": apply_to or (), "fixed_label": fixed_label or ()}
    masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    marks = {"fixed_landmarks": fixed_landmarks, "moving_landmarks": moving_landmarks}
    given: dict[str, Any] = {**labels, **masks, **marks, "overwrite": overwrite, "progress": True}
    found = register_pair(fixed, moving, out, fixed_modality, moving_modality, transform, parameters, **given)
    return finished(out, found, passed=True)


@command(images_app, "fuse-image")
def fuse_image(  # noqa: PLR0913 - one flag for each thing that makes the picture
    ct: Annotated[Path, typer.Argument(help="CT in HU: NIfTI, or a folder of one DICOM series; or a grey picture.")],
    mr: Annotated[Path, typer.Argument(help="MR on the CT's grid: likewise. `tandem register` brings it there.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture: .nii.gz of volumes, .png of pictures.")],
    method: Annotated[
        str, typer.Option(help="ct, mr, mean, max, gradient, laplacian, atrous, guided, network; else atrous.")
    ] = "",
    weights: Annotated[
        str, typer.Option(help="Of the network: a file of `train.yaml`, or heads.pt, which comes with Tandem.")
    ] = "",
    sha256: Annotated[str, typer.Option(help="The expected hash of the weights.")] = "",
    window: Annotated[
        list[str] | None, typer.Option(help="LEVEL,WIDTH in HU, in which CT is shown; of a network repeatable.")
    ] = None,
    picture: Annotated[bool, typer.Option("--picture", help="Draw CT, MR and both side by side, too.")] = False,
    measures: Annotated[bool, typer.Option(help="Measure it; of a large volume this takes longest.")] = True,
    device: Device = "",
    engine: Annotated[str, typer.Option(help="Of a network: torch, or openvino (of a processor).")] = "torch",
) -> None:
    """Make one picture of a CT and an MR that lie on one grid, and measure it beside ones that take no skill."""
    from pipeline.commands.fuse_image import fuse_image as fuse_pair
    from pipeline.commands.fuse_image import show, window_of

    windows = [window_of(text) for text in window or ()]
    runs: dict[str, Any] = {"device": device, "engine": engine}
    show(fuse_pair(ct, mr, out, method, weights, sha256, windows, picture, measures, **runs))


@command(images_app)
def segment(  # noqa: PLR0913 - one flag for each setting of a prediction
    *,
    input_: Annotated[list[str], typer.Option("--input", "-i", help="An image, or ROLE=IMAGE; repeatable.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A model's folder, or a name that is installed.")],
    out: Out,
    folds: Annotated[str, typer.Option(help="Of the model, separated by commas; all when left out.")] = "",
    engine: Annotated[str, typer.Option(help="torch, or openvino: faster on a processor.")] = "torch",
    step: Annotated[float, typer.Option(help="From one tile to the next, as a part of its side.")] = 0.5,
    mirroring: Annotated[bool, typer.Option(help="Average over mirror images, at several times the cost.")] = True,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Faster on some processors, a little less exact.")
    ] = False,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Write a volume for each label, too.")] = False,
    dicom_seg: Annotated[bool | None, typer.Option(help="Labels as DICOM SEG; by default where DICOM came in.")] = None,
    calibration: Annotated[str, typer.Option(help="Of the logits; the model's own when left out.")] = "",
    keep_names: Annotated[bool, typer.Option("--keep-names", help="Name cases as their files are named.")] = False,
    device: Device = "",
    overwrite: Overwrite = False,
) -> int:
    """Segment images with a trained nnU-Net: labels, entropy and volumes in ml, on the grid of the images."""
    from pipeline.commands.segment import segment as segment_images

    chosen = [int(fold) if fold.isdigit() else fold for fold in names_in(folds)]
    settings = (chosen, engine, step, mirroring, bfloat16, probabilities, dicom_seg, calibration, keep_names, device)
    return finished(out, segment_images(input_, model, out, *settings, overwrite, progress=True))


@command(images_app)
def radiomics(  # noqa: PLR0913 - one flag for each thing that is measured, or how
    *,
    input_: Annotated[list[Path] | None, typer.Option("--input", "-i", help="An image (NIfTI); repeatable.")] = None,
    mask: Annotated[
        list[Path] | None, typer.Option("--mask", "-m", help="Its mask: one an image, or one for all; repeatable.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="A CSV instead: case_id, image, mask; image_name, mask_name, label, config.")
    ] = None,
    config: Annotated[
        list[str],
        typer.Option("--config", "-c", help="A preset (ibsi_ct, ibsi_pet, ibsi_mr …) or a YAML file."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table of features (.csv).")],
    label: Annotated[list[int] | None, typer.Option(help="Of the masks; all when left out; repeatable.")] = None,
    case: Annotated[str, typer.Option(help="The case that all images are of; else each is one.")] = "",
    names: Annotated[str, typer.Option(help="Names of the columns: ibsi or pyradiomics.")] = "ibsi",
    robustness: Annotated[
        str, typer.Option(help="Perturb regions, and say how well features agree: `default`, or a YAML file.")
    ] = "",
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="Write a map of this feature, as NIfTI; repeatable.")
    ] = None,
    map_radius: Annotated[
        int | None, typer.Option(min=1, help="Of the cube around each voxel of a map, voxels; 1 when left out.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Draw the regions, too: .html and .pdf beside the table.")
    ] = False,
    device: Annotated[str, typer.Option("--device", "-d", help="For filters: cpu, cuda or cuda:N.")] = "cpu",
    jobs: Jobs = 1,
) -> int:
    """Measure IBSI's features of regions: a table, its dictionary and the reporting sheet."""
    from pipeline.commands.radiomics import radiomics as measure_regions
    from pipeline.commands.radiomics import show
    from pipeline.radiomics.table import as_naming

    given = (input_ or (), mask or (), out, config, cases, label or (), case, names, jobs, page, robustness)
    return show(measure_regions(*given, map_ or (), map_radius, device, progress=True), out, as_naming(names))
