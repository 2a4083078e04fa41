"""One picture of CT and MR, without a cohort: `tandem fuse-image`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from PIL import Image
from rich.table import Table

from pipeline.commands.register import MOVED, QUALITY, dicom_volume
from pipeline.console import echo, print_table, shown
from pipeline.endings import VOLUMES
from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion.metrics import MEASURES, Measures
from pipeline.image_fusion.pair import (
    IN_WORDS,
    SHOWN,
    SWAPPED,
    Fused,
    Recipe,
    fuse_pictures,
    fuse_volumes,
    measured,
    recipe,
)
from pipeline.image_fusion.pictures import Floats, is_volume, read_picture
from pipeline.inference.device import local_device
from pipeline.inference.engine import Engine
from pipeline.nifti.volume import read_argument
from pipeline.run.plan import require_device
from pipeline.shipped import shipped_model
from pipeline.store.artifacts import save
from pipeline.store.files import replaced, require_given, sha256_file, writable_folder, write_atomic
from pipeline.store.records import versions
from pipeline.volumes import affine_of, oriented, require_same_grid, volume
from pipeline.words import DISCLAIMER, NOT_AVAILABLE

#: How a result's name ends: of a volume, of a picture.
VOLUME, PICTURE = ".nii.gz", ".png"
ALIGN = "Align them first: `tandem register CT MR --out DIR`, then fuse the CT with DIR/moved.nii.gz."


@dataclass(frozen=True)
class FusedPair:
    """What `tandem fuse-image` has made.

    Attributes:
        out: the picture.
        method: by which it was made.
        measures: method -> measures: of the picture itself, and of what takes no skill.
        notes: sentences that a reader has to know.
        drawn: the picture beside its sources, where it was asked for.
    """

    out: Path
    method: str
    measures: dict[str, Measures]
    notes: tuple[str, ...]
    drawn: Path | None = None


def fuse_image(  # noqa: PLR0913 - each is an option of the command
    ct: str | Path,
    mr: str | Path,
    out: str | Path,
    method: str = "",
    weights: str | Path = "",
    sha256: str = "",
    windows: Sequence[Sequence[float]] = (),
    picture: bool = False,
    measures: bool = True,
    device: str = "",
    engine: Engine = "torch",
) -> FusedPair:
    """Make one picture of CT and MR on one grid: `tandem fuse-image`.

    Beside `F.nii.gz` go `F.json` (measures, and what it was made of), of a network `F_weights.nii.gz` and
    `F_attention.nii.gz`, and `F_picture.png`. The same of pictures: `F.png`.

    Args:
        ct: a NIfTI file or a folder of one DICOM series, in HU; or a grey picture.
        mr: on the same grid: likewise.
        out: `.nii.gz` for volumes, `.png` for pictures; none of the inputs.
        method: a name of `pipeline.image_fusion.baselines.BASELINES`, or `network`; the network where weights are
            named, else `atrous`, when empty.
        weights: of the network: a file, or the name of weights that come with Tandem (`heads.pt`).
        sha256: their expected hash.
        windows: level and width of each, in HU of volumes, of 0 to 1 of pictures.
        picture: draw both images and the result side by side, too.
        measures: measure it, and what takes no skill; of a large volume this takes longer than all else.
        device: `cpu`, `cuda` or `cuda:N`, for a network.
        engine: `torch`, or `openvino` on a processor.

    Raises:
        UsageError: E_OUT, E_OPTION, E_INPUT, E_WEIGHTS, E_CHECKPOINT, E_CONFIG, E_EXTRA, E_NIFTI, and what ingest
            raises.
        CaseError: E_GRID for images of two grids; E_MODALITY for CT in the place of MR; E_BLANK, E_NOT_SCALAR.
    """
    ct, mr, out, weights = Path(ct), Path(mr), Path(out), shipped_model("fuse_image", str(weights))
    flat = _are_pictures(ct, mr)
    stem = _require_out(out, PICTURE if flat else VOLUME, (ct, mr, Path(weights)))
    if device:
        require_device(device)
    given = (tuple((float(level), float(width)) for level, width in windows), weights, sha256)
    how = recipe(method, *given, device or local_device(), flat, engine)
    for path in (ct, mr):
        if not path.is_dir():
            require_given(path, "an image")
    hashes = {name: sha256_file(path) for name, path in (("ct", ct), ("mr", mr)) if path.is_file()}
    if len(set(hashes.values())) < len(hashes):
        what = f"Expected CT and MR, got one image twice: {ct} and {mr}."
        raise UsageError("E_OPTION", what, "Name the CT first, then the MR on its grid.")
    drawn = out.with_name(f"{stem}_picture{PICTURE}") if picture else None
    made = _fused_pictures(ct, mr, how, stem, out, drawn) if flat else _fused_volumes(ct, mr, how, stem, out, drawn)
    found = measured(made, how) if measures else {}
    about = {
        "method": how.method,
        "windows": how.windows,
        "weights_sha256": how.sha256 or None,
        "engine": how.engine if how.trained else None,
        "inputs_sha256": hashes,
    }
    quality = _quality(mr)
    said = (f"Verdict of the alignment: {quality.get('verdict')}. {quality.get('reason')}",) if quality else ()
    notes = (*how.sentences, *made.notes, *said)
    save(stem, "measure", {**about, "notes": notes, "measures": found, "versions": versions()}, out.parent)
    return FusedPair(out, how.method, found, notes, drawn)


def show(found: FusedPair) -> None:
    """Print the measures of a picture beside those of pictures that take no skill."""
    if found.measures:
        table = Table("measure", *(IN_WORDS[name] for name in found.measures), "meaning", box=None, header_style="bold")
        for name in SHOWN:
            values = (NOT_AVAILABLE if item[name] is None else f"{item[name]:.3g}" for item in found.measures.values())
            table.add_row(name, *values, MEASURES[name])
        print_table(table)
    for note in found.notes:
        echo(note)
    echo(f"Picture: {found.out}")
    if found.drawn:
        echo(f"Beside its sources: {found.drawn}")


def window_of(text: str) -> tuple[float, float]:
    """Level and width of a text such as `150,500`.

    Raises:
        UsageError: E_OPTION.
    """
    try:
        level, width = map(float, text.split(","))
    except ValueError as error:
        what = f"Expected a window as LEVEL,WIDTH, got {text}."
        raise UsageError("E_OPTION", what, "Write it such as 150,500.") from error
    return level, width


def _are_pictures(ct: Path, mr: Path) -> bool:
    flat = [not path.is_dir() and not is_volume(path) for path in (ct, mr)]
    if flat[0] != flat[1]:
        got = f"{ct} and {mr}"
        raise UsageError("E_OPTION", f"Expected two volumes or two pictures, got {got}.", f"Volumes end {VOLUMES}.")
    return flat[0]


def _require_out(out: Path, ending: str, inputs: Sequence[Path]) -> str:
    """The name of the result without its ending, before anything is computed.

    Raises:
        UsageError: E_OUT for another ending, a folder, or a file that would take the place of an input.
    """
    stem = out.name[: -len(ending)]
    if not out.name.endswith(ending) or not stem or out.is_dir():
        raise UsageError("E_OUT", f"Expected a file {ending} to write, got {out}.", f"Name it such as fused{ending}.")
    if taken := replaced(_made(out.parent, stem, ending), inputs):
        raise UsageError("E_OUT", f"Expected another file than the input {taken}.", "Give the result another name.")
    writable_folder(out.parent)
    return stem


def _made(folder: Path, stem: str, ending: str) -> Iterator[Path]:
    """All that may be written."""
    for part in (ending, ".json", f"_weights{VOLUME}", f"_attention{VOLUME}", f"_picture{PICTURE}"):
        yield folder / f"{stem}{part}"


def _quality(mr: Path) -> dict[str, Any]:
    """What `tandem register` has said of the alignment of the MR, which it has left beside it; else nothing."""
    beside = mr.with_name(QUALITY)
    if mr.name != MOVED or not beside.is_file():
        return {}
    found: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
    return found


def _forget(out: Path, stem: str, ending: str) -> None:
    """Delete what another run has left beside a picture of this name: it does not belong to the one that follows."""
    for path in _made(out.parent, stem, ending):
        if path != out:
            path.unlink(missing_ok=True)


def _fused_pictures(ct: Path, mr: Path, how: Recipe, stem: str, out: Path, drawn: Path | None) -> Fused:
    made = fuse_pictures(read_picture(ct), read_picture(mr), how)
    _forget(out, stem, PICTURE)
    _save_picture(made.image, out)
    for name, maps in _maps(made):
        save(f"{stem}_{name}", "probability", volume(maps[..., None], np.eye(4)), out.parent)
    if drawn:
        _save_picture(np.concatenate([made.ct, made.mr, made.image], axis=1), drawn)
    return made


def _fused_volumes(ct: Path, mr: Path, how: Recipe, stem: str, out: Path, drawn: Path | None) -> Fused:
    images = [_volume(path, modality) for path, modality in ((ct, "CT"), (mr, "MR"))]
    try:
        require_same_grid(images[0], images[1], ("CT", "MR"))
    except CaseError as error:
        raise CaseError(error.code, error.message, ALIGN) from error
    affine = affine_of(images[0])
    made = fuse_volumes(images[0].numpy()[0], images[1].numpy()[0], affine, how)
    _forget(out, stem, VOLUME)
    save(stem, "image", volume(made.image, affine), out.parent)
    for name, maps in _maps(made):
        save(f"{stem}_{name}", "probability", volume(maps, affine), out.parent)
    if drawn:
        png = _drawn(made, how, images[0], _quality(mr).get("verdict"))
        write_atomic(drawn, lambda path: path.write_bytes(png))
    return made


def _maps(made: Fused) -> Iterator[tuple[str, Floats]]:
    if made.weights is not None and made.attention is not None:
        yield from (("weights", made.weights), ("attention", made.attention))


def _volume(path: Path, modality: str) -> MetaTensor:
    """A NIfTI file, or a folder of one DICOM series of a modality, which ingest reads.

    Raises:
        UsageError: E_MODALITY for a series of another one; what reading raises.
    """
    if not path.is_dir():
        return read_argument(path)
    with tempfile.TemporaryDirectory() as folder, shown(progress=False):
        made, found = dicom_volume(path, Path(folder))
        if found != modality:
            raise UsageError("E_MODALITY", f"Expected a series of {modality}, got one of {found} in {path}.", SWAPPED)
        return read_argument(made)


def _save_picture(values: Floats, path: Path) -> None:
    grey = np.rint(255 * values).astype(np.uint8)
    write_atomic(path, lambda temporary: Image.fromarray(grey).save(temporary))


def _drawn(made: Fused, how: Recipe, ct: MetaTensor, alignment: str | None) -> bytes:
    """CT, MR and the picture in three planes; above them what a reader of the picture alone has to know, in a line."""
    from pipeline.report.figures import Column, draw_columns
    from pipeline.report.slices import body_frame, voxels

    image = oriented(ct)
    both = {"MR": made.mr, "Both": made.image}
    columns = [Column("CT", voxels(image), how.ends, "HU")]
    columns += [Column(name, voxels(oriented(volume(item, affine_of(ct)))), (0.0, 1.0)) for name, item in both.items()]
    parts = [f"CT and MR: {how.name}", *([f"alignment: {alignment}"] if alignment else [])]
    title = ", ".join([*parts, *(note.partition(":")[0] for note in made.notes)]) + f". {DISCLAIMER}"
    return draw_columns(columns, image, body_frame(image, "CT"), title)
