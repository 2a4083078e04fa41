"""Segment images without a cohort: `tandem segment`; and where segmentation meets its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cases import Record
from pipeline.commands.register import dicom_volume, link
from pipeline.console import shown
from pipeline.endings import volume_stem
from pipeline.errors import UsageError
from pipeline.run.loading import parser_of, part_of
from pipeline.run.plan import Plan
from pipeline.segmentation.model import Model, channels_of, described, partners_of
from pipeline.segmentation.predict import Predictor
from pipeline.segmentation.weights import CHECKPOINT, ENSEMBLE, find_model
from pipeline.segmentation.workspace import TANDEM
from pipeline.spec.spec import Role, Spec, save_spec
from pipeline.spec.stages import Segment
from pipeline.store import records
from pipeline.store.files import run_lock, writable_folder
from pipeline.store.pseudonyms import Pseudonyms

if TYPE_CHECKING:
    from pipeline.calibration.base import Calibration

#: What a model's folder may hold beside its folds that changes what it says.
PARTS = ("plans.json", "dataset.json", TANDEM, "postprocessing.json", ENSEMBLE)
_INPUTS = "Give -i ROLE=FILE once for each channel, a file or folder of DICOM a case for a model of one channel, or a "
_INPUTS += "folder of files CASE_0000.nii.gz, CASE_0001.nii.gz …"


def calibration_of(path: str, model_dir: str | Path, predictor: Predictor) -> Calibration | None:
    """The calibration at a path, or the model's own; None where there is neither.

    Raises:
        UsageError: E_CAL_NETWORK when it was fitted on other logits; E_CAL_FILE, E_CAL_METHOD, E_CAL_TRAINING.
    """
    # of one model's logits; an ensemble averages probabilities
    own = "" if predictor.model.partners else str(predictor.model.about.get("calibration") or "")
    found = path or (str(Path(model_dir) / own) if own else "")
    if not found:
        return None
    from pipeline.calibration.comparison import read_calibration

    return read_calibration(Path(found), output_of(predictor.model))


def output_of(model: Model) -> str:
    """What logits a calibration is fitted on and made for, in words."""
    return "voxels of nnU-Net, folds " + ", ".join(f"{fold} {digest[:12]}" for fold, digest in model.digests.items())


def files_of(model_dir: str | Path, trained: Model, calibration: str = "") -> list[Path]:
    """The files that make what a model says: part of the resume key."""
    folder = Path(model_dir)
    kept = [folder / name for name in PARTS if (folder / name).is_file()]
    folds = [folder / f"fold_{fold}" / CHECKPOINT for fold in trained.networks]
    own = trained.about.get("calibration")
    fitted = Path(calibration) if calibration else folder / own if own else None
    before = trained.configuration.previous_stage_name
    first = sorted(folder.parent.glob(f"*__{before}/fold_*/{CHECKPOINT}")) if before else []
    others = [item for path in partners_of(folder) for item in sorted(path.glob(f"fold_*/{CHECKPOINT}"))]
    return [*kept, *folds, *first, *others, *([fitted] if fitted else [])]


def segment(  # noqa: PLR0913 - each is an option of the command
    inputs: Sequence[str | Path],
    model: str | Path,
    out: str | Path,
    folds: Sequence[int | str] = (),
    engine: str = "torch",
    step: float = 0.5,
    mirroring: bool = True,
    bfloat16: bool = False,
    probabilities: bool = False,
    dicom_seg: bool | None = None,
    calibration: str | Path = "",
    keep_names: bool = False,
    device: str = "",
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, list[Record]]:
    """Segment images: `tandem segment`. A bad case never stops the others; the weights are loaded once.

    Args:
        inputs: NIfTI files or folders of one DICOM series, a case each; `role=path` for each channel of one case; or a
            folder of NIfTI files, with `_0000` … behind the case's name where the model has several channels.
        model: a name that `tandem weights list` shows, or a model's folder.
        out: the run folder; beside `cases/` it has a link `CASE.nii.gz` to each case's labels.
        folds: whose logits are averaged; all that the model has when left out.
        engine: `torch` or `openvino`.
        step: from one tile to the next, as a part of its side.
        mirroring: average over mirror images.
        bfloat16: count in bfloat16 on a processor.
        probabilities: write a volume of them for each label.
        dicom_seg: write the labels as a DICOM SEG too; None: where the input is DICOM.
        calibration: of the logits; the model's own when left out.
        keep_names: name cases as their files, which may name a patient; else a pseudonym stands for each.
        device: `cpu`, `cuda` or `cuda:N`.
        overwrite: do the work again even where it is done.
        progress: print a line, and show a bar at a terminal.

    Returns:
        The records, by case id.

    Raises:
        UsageError: E_WEIGHTS, E_FOLD, E_CHANNELS, E_INPUT, E_NO_CASES, E_NAMES, E_OPTION, E_CAL_…, E_EXTRA; E_OUT.
    """
    out, folder = writable_folder(Path(out)), find_model(str(model))
    dataset, about = described(folder)
    channels = channels_of(dataset, about)
    named = dataset.get("channel_names") or dataset["modality"]
    kinds = ["CT" if str(named[key]).casefold() == "ct" else "MR" for key in sorted(named, key=int)]
    roles = {role: Role(modality=(kind,)) for role, kind in zip(channels, kinds, strict=True)}
    section = Segment(channels={role: str(named[str(number)]) for number, role in enumerate(channels)})
    spec = Spec(name="segment", description="Images to be segmented.", roles=roles, segment=section)
    with shown(progress), run_lock(out):
        save_spec(spec, out)
        cases = _cases([str(item) for item in inputs], channels, out, keep_names)
        of_dicom = any(out in path.parents for case in cases for path in case.values() if isinstance(path, Path))
        settings: dict[str, Any] = {
            **{"model": str(folder), "folds": list(folds), "engine": engine, "step": step, "mirroring": mirroring},
            **{"bfloat16_on_cpu": bfloat16, "probabilities": probabilities, "calibration": str(calibration)},
            "dicom_seg": of_dicom if dicom_seg is None else dicom_seg,
        }
        plan = Plan(out, out, overwrite=overwrite, device=device)
        part_of(parser_of("segment", plan, **settings), "stage").run(cases)
        records.write_table(out)
        for case in cases:
            link(out, case["case_id"], {f"{case['case_id']}.nii.gz": "segment/segment_label.nii.gz"})
    return records.of_run(out)


def _cases(inputs: Sequence[str], channels: Sequence[str], out: Path, keep_names: bool) -> list[dict[str, Any]]:
    """The cases that inputs stand for, each with a path for every channel.

    Raises:
        UsageError: E_CHANNELS, E_INPUT, E_NO_CASES, E_NAMES.
    """
    paths = [(role, path) for role, _, path in (item.rpartition("=") for item in inputs)]
    if any(role for role, _ in paths):
        given = dict(paths)
        if set(given) != set(channels) or len(given) < len(paths):
            got = ", ".join(role or "one without a role" for role, _ in paths)
            raise UsageError("E_CHANNELS", f"Expected the channels {', '.join(channels)}, got {got}.", _INPUTS)
        found = {volume_stem(Path(given[channels[0]])): {role: Path(given[role]) for role in channels}}
    else:
        found = _unnamed([Path(path) for _, path in paths], channels)
    if not found:
        raise UsageError("E_NO_CASES", "Expected images to segment, got none.", _INPUTS)
    names = Pseudonyms(out)
    cases = []
    for number, (name, images) in enumerate(found.items()):
        ready = {role: _image(path, out / f"input_{number}_{role}") for role, path in images.items()}
        cases.append({"case_id": name if keep_names else names.of("case", name), **ready})
    return cases


def _unnamed(paths: Sequence[Path], channels: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Case -> images, where no role is named: one file a case, or nnU-Net's file names."""
    files = [file for path in paths for file in (_files(path) or [path])]
    if len(channels) == 1:
        stems = [volume_stem(file).removesuffix("_0000") for file in files]
        if twice := [stem for stem in stems if stems.count(stem) > 1]:
            raise UsageError("E_NAMES", f"Expected a name of its own for each case, got {twice[0]} twice.")
        return {stem: {channels[0]: file} for stem, file in zip(stems, files, strict=True)}
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        case, _, number = volume_stem(file).rpartition("_")
        if not case or not number.isdigit() or int(number) >= len(channels):
            what = f"Expected the channels {', '.join(channels)}, got {file.name}, which does not say which it is."
            raise UsageError("E_CHANNELS", what, _INPUTS)
        found.setdefault(case, {})[channels[int(number)]] = file
    return {case: {role: images[role] for role in channels if role in images} for case, images in found.items()}


def _files(path: Path) -> list[Path]:
    """The NIfTI files of a folder, in order; none of a file, or of a folder of DICOM."""
    return sorted(item for item in path.glob("*.nii*") if item.is_file()) if path.is_dir() else []


def _image(path: Path, ingested: Path) -> Path:
    """A file as it is; a folder of DICOM as the volume that ingest makes of it.

    Raises:
        UsageError: E_INPUT for a path that is not there.
    """
    if path.is_dir():
        return dicom_volume(path, ingested)[0]
    if not path.is_file():
        raise UsageError("E_INPUT", f"Expected an image, got {path}.", "Check the path.")
    return path
