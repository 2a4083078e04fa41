"""Models of nnU-Net on this machine: taken in offline, kept lean, known by their sha256; no pickle is ever trusted.

A model is nnU-Net's results folder of one configuration: dataset.json, plans.json, fold_*/checkpoint_final.pth, and
Tandem's tandem.json with the map of its labels, its channels, and the sha256 of each file.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pipeline.errors import DISK_IS_FULL, CaseError, UsageError
from pipeline.segmentation.workspace import TANDEM
from pipeline.shipped import shipped
from pipeline.spec.roles import role_of
from pipeline.store.files import TEMPORARY_PREFIX, run_lock, sha256_file, write_atomic
from pipeline.store.plain import write_json
from pipeline.store.pseudonyms import private_folder

CHECKPOINT = "checkpoint_final.pth"
PLANS, DATASET, MANIFEST = "plans.json", "dataset.json", "manifest.json"
#: What is kept of a checkpoint: half its size, since the optimiser's state is not.
LEAN = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
#: What nnU-Net's checkpoints hold beside tensors and plain values: numpy's numbers (its loss curves).
_NUMPY = (np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_)
#: What evaluate.yaml adds to a model: a calibration of its logits, and nnU-Net's postprocessing.
FOUND = ("calibration.json", "postprocessing.json")
#: Which models beside it its probabilities are averaged with, by the names of their folders.
ENSEMBLE = "ensemble.json"
_MODEL_FILE = re.compile(rf"({'|'.join((PLANS, DATASET, TANDEM, ENSEMBLE, *FOUND))}|fold_(\d+|all)/{CHECKPOINT})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ADD = "Add it with `tandem weights add`, or add it again if it was changed on purpose."


@dataclass(frozen=True)
class Model:
    """An installed model: name, folder, its channels as roles, its labels, its folds, and its size in bytes."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    folds: tuple[str, ...]
    size: int


def weights_home() -> Path:
    """The folder of installed models, below TANDEM_HOME or `~/.tandem`."""
    return private_folder() / "weights"


def allowed_globals() -> list[Any]:
    """What a checkpoint may name beside tensors and plain values: numpy's numbers and their types."""
    return [np.dtype, _scalar(), *_NUMPY, *(type(np.dtype(kind)) for kind in _NUMPY)]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net without running any code of it.

    Returns:
        What it holds; `LEAN` at least.

    Raises:
        UsageError: E_WEIGHTS when it cannot be read, holds code or objects, or is of another kind.
    """
    try:
        with torch.serialization.safe_globals(allowed_globals()):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on files that are no checkpoints
        what = f"Expected a checkpoint of nnU-Net that holds numbers alone, got {path.name}, which does not"
        raise UsageError("E_WEIGHTS", f"{what} ({type(error).__name__}).") from error
    absent = [key for key in LEAN if not isinstance(found, dict) or key not in found]
    if absent:
        raise UsageError("E_WEIGHTS", f"Expected a checkpoint of nnU-Net, got {path.name} without {absent[0]}.")
    weights = found["network_weights"]
    if not weights or not all(isinstance(item, torch.Tensor) for item in weights.values()):
        raise UsageError("E_WEIGHTS", f"Expected the weights of a network in {path.name}, got something else.")
    return dict(found)


def write_lean(found: Mapping[str, Any], path: Path) -> str:
    """Write what prediction needs of a checkpoint.

    Returns:
        The file's sha256.
    """
    kept = {key: found[key] for key in LEAN}
    return write_atomic(path, lambda temporary: torch.save(kept, temporary), _reread)


def find_model(name_or_path: str) -> Path:
    """The folder of a model, every file of which is the one that was taken in.

    Args:
        name_or_path: an installed model's name, that of one that comes with Tandem, or a folder with tandem.json.

    Raises:
        UsageError: E_WEIGHTS when there is none, or a file is missing, changed or not in the manifest.
    """
    given, own = Path(name_or_path), shipped("bundles", "segment", "models", name_or_path)
    if _NAME.fullmatch(name_or_path) and name_or_path not in _manifest() and own.is_dir():
        given = own
    if not name_or_path or name_or_path in _manifest() or not given.is_dir():
        return verify(name_or_path)
    _require_files(given.name, given, _hashes(given))
    return given


def unchanged(folder: Path) -> Path:
    """A model's folder beside another model's, whose files are looked at as `find_model` looks at that one's.

    Raises:
        UsageError: E_WEIGHTS.
    """
    if folder.parent == weights_home():
        return verify(folder.name)
    if (folder / TANDEM).is_file():
        _require_files(folder.name, folder, _hashes(folder))
    return folder


def verify(name: str) -> Path:
    """Compare an installed model's files with the manifest.

    Raises:
        UsageError: E_WEIGHTS.
    """
    hashes, folder = _entry(name), weights_home() / name
    _require_files(name, folder, hashes)
    return folder


def names() -> list[str]:
    """The names of the installed models."""
    return sorted(_manifest())


def installed() -> list[Model]:
    """The installed models, by name; their files are not compared.

    Raises:
        UsageError: E_WEIGHTS when what one says of itself cannot be read.
    """
    return [_model(name, weights_home() / name) for name in names()]


def add(file: Path, name: str = "", sha256: str = "") -> list[Model]:
    """Take in models: a results folder of nnU-Net, one above it, or a zip of `nnUNetv2_export_model_to_zip`.

    Args:
        file: folder or zip.
        name: of the model; when left out, and for each of several, that of its dataset with the configuration.
        sha256: that the zip has to have; not asked when empty.

    Raises:
        UsageError: E_WEIGHTS, E_NAMES when the name is taken or not fit for a folder, E_DISK, E_OUT, E_BUSY.
    """
    if sha256 and (not file.is_file() or sha256_file(file) != sha256.lower()):
        raise UsageError("E_WEIGHTS", f"Expected {file.name} with the sha256 {sha256}, got another file.")
    with run_lock(weights_home()), _unpacked(file) as root:
        sources = sorted({path.parent for path in root.rglob(PLANS) if _checkpoints(path.parent)})
        if not sources:
            what = f"Expected {PLANS} with fold_*/{CHECKPOINT} beside it in {file.name}, got none."
            raise UsageError("E_WEIGHTS", what, "Give a results folder of nnU-Net, or a zip of its export.")
        called = [name if len(sources) == 1 and name else _own_name(name, source) for source in sources]
        taken = [one for one in called if one in _manifest() or called.count(one) > 1 or not _NAME.fullmatch(one)]
        if taken:
            what = f"Expected a free name of letters, digits, _, . and -, got {taken[0]}."
            raise UsageError("E_NAMES", what, "Choose another --name, or remove that model first.")
        named = dict(zip(sources, called, strict=True))
        partners = {source: _partners(source, named) for source in sources}
        try:
            return [_install(source, one, partners[source]) for source, one in named.items()]
        except CaseError as error:
            raise UsageError(error.code, error.message) from error


def remove(name: str) -> None:
    """Forget an installed model and delete its files.

    Raises:
        UsageError: E_WEIGHTS when there is none of this name; E_BUSY.
    """
    with run_lock(weights_home()):
        _entry(name)
        write_json(weights_home() / MANIFEST, {key: value for key, value in _manifest().items() if key != name})
        shutil.rmtree(weights_home() / name, ignore_errors=True)


def describe(folder: Path, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write a model folder's tandem.json: what is known of it, and the sha256 of each of its files.

    Args:
        folder: with dataset.json, plans.json and the checkpoints.
        about: `label_map`, `channels`, `spec`, `calibration`; what is missing is taken from dataset.json.

    Returns:
        What was written.
    """
    dataset = read_json(folder / DATASET)
    try:
        labels = dataset["labels"].values()
        numbers = {value for of in labels for value in (of if isinstance(of, list) else [of]) if value}
        channels = [dataset["channel_names"][key] for key in sorted(dataset["channel_names"], key=int)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError("E_WEIGHTS", f"Expected nnU-Net's {DATASET}, got one without labels or channels.") from error
    roles = [role_of(str(name)) for name in channels]
    known = {"label_map": {str(n): n for n in sorted(numbers)}, "channels": roles, "spec": "", "calibration": None}
    known["orientation"] = "RAS"  # what `tandem convert` makes; of other models it may be said
    known |= {key: value for key, value in (about or {}).items() if key in known}
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / TANDEM)
    hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files if _is_model_file(path, folder)}
    write_json(folder / TANDEM, {**known, "sha256": hashes})
    return {**known, "sha256": hashes}


def _partners(source: Path, names: Mapping[Path, str]) -> list[str]:
    """The names that an ensemble's other models are taken in by.

    Raises:
        UsageError: E_WEIGHTS when one is not among the models that are taken in.
    """
    found = read_json(source / ENSEMBLE)["with"] if (source / ENSEMBLE).is_file() else []
    if gone := [str(name) for name in found if source.with_name(str(name)) not in names]:
        what = f"Expected the ensemble's other model {gone[0]} beside {source.name}, got none."
        raise UsageError("E_WEIGHTS", what, "Give the folder that holds them both.")
    return [names[source.with_name(str(name))] for name in found]


def _install(source: Path, name: str, partners: Sequence[str] = ()) -> Model:
    """Copy a model lean under a temporary name, describe it, and only then put it in its place and the manifest."""
    about = read_json(source / TANDEM) if (source / TANDEM).is_file() else {}
    _require_files(name, source, about.get("sha256") or {}, alone=False)
    folder = weights_home() / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}"
    try:
        for path in _checkpoints(source):
            write_lean(load_checkpoint(path), folder / path.parent.name / CHECKPOINT)
        for kept in (DATASET, PLANS, *(name for name in FOUND if (source / name).is_file())):
            read_json(source / kept)
            write_atomic(folder / kept, partial(shutil.copyfile, source / kept))
        if partners:
            write_json(folder / ENSEMBLE, {"with": list(partners)})
        hashes = {**describe(folder, about)["sha256"], TANDEM: sha256_file(folder / TANDEM)}
        shutil.rmtree(weights_home() / name, ignore_errors=True)  # what a removal that was killed has left
        folder.rename(weights_home() / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(weights_home() / MANIFEST, {**_manifest(), name: hashes})
    return _model(name, weights_home() / name)


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """The folder itself; of a zip, a temporary folder with those of its files that a model has."""
    if file.is_dir():
        yield file
        return
    with TemporaryDirectory() as name:
        try:
            with zipfile.ZipFile(file) as archive:
                for item in archive.infolist():
                    parts = PurePosixPath(item.filename)
                    if parts.is_absolute() or ".." in parts.parts or "\\" in item.filename:
                        raise UsageError("E_WEIGHTS", f"Expected files below one folder in {file.name}, got others.")
                    if parts.name in (PLANS, DATASET, TANDEM, CHECKPOINT, ENSEMBLE, *FOUND):
                        archive.extract(item, name)
        except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
                raise
            what = f"Expected a results folder of nnU-Net or a zip of one, got {file.name} ({type(error).__name__})."
            raise UsageError("E_WEIGHTS", what) from error
        yield Path(name)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"fold_*/{CHECKPOINT}") if _is_model_file(path, folder))


def _is_model_file(path: Path, folder: Path) -> bool:
    return bool(_MODEL_FILE.fullmatch(path.relative_to(folder).as_posix()))


def _own_name(name: str, source: Path) -> str:
    """Dataset and configuration, such as `Dataset004_Hippocampus-3d_fullres`."""
    configuration = source.name.rpartition("__")[2]
    return f"{name or source.parent.name}-{configuration}"


def _model(name: str, folder: Path) -> Model:
    about, dataset = read_json(folder / TANDEM), read_json(folder / DATASET)
    folds = tuple(path.parent.name.removeprefix("fold_") for path in _checkpoints(folder))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    labels = tuple(label for label in dataset["labels"] if label not in ("background", "ignore"))
    return Model(name, folder, tuple(about["channels"]), labels, folds, size)


def _require_files(name: str, folder: Path, hashes: Mapping[str, str], alone: bool = True) -> None:
    """Refuse files that are not those of the hashes; with `alone`, also files of a model that have no hash."""
    there = {path for path in folder.rglob("*") if path.is_file() and _is_model_file(path, folder)}
    stranger = sorted(path.name for path in there if path.relative_to(folder).as_posix() not in {*hashes, TANDEM})
    if stranger and alone:
        raise UsageError("E_WEIGHTS", f"Expected the files of the model {name}, got {stranger[0]} beside them.", _ADD)
    for part, digest in hashes.items():
        path = folder / part
        if not path.is_file() or sha256_file(path) != digest:
            got = "another one" if path.is_file() else "none"
            raise UsageError("E_WEIGHTS", f"Expected {part} of the model {name} as it was taken in, got {got}.", _ADD)


def _hashes(folder: Path) -> dict[str, str]:
    if not (folder / TANDEM).is_file():
        what = f"Expected a model that Tandem has taken in, got the folder {folder.name} without {TANDEM}."
        raise UsageError("E_WEIGHTS", what, _ADD)
    found = read_json(folder / TANDEM).get("sha256")
    if not isinstance(found, dict) or not {PLANS, DATASET} <= found.keys() or len(found) < 3:
        raise UsageError("E_WEIGHTS", f"Expected the sha256 of each file in {TANDEM} of {folder.name}, got none.", _ADD)
    return found


def _entry(name: str) -> dict[str, str]:
    """What the manifest says of a model: file -> sha256."""
    manifest = _manifest()
    if name not in manifest:
        known = f"one of the installed models ({', '.join(sorted(manifest))})" if manifest else "an installed model"
        raise UsageError("E_WEIGHTS", f"Expected {known}, got {name or 'no name'}.", _ADD)
    return manifest[name]


def _manifest() -> dict[str, dict[str, str]]:
    path = weights_home() / MANIFEST
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of a model holds.

    Raises:
        UsageError: E_WEIGHTS when it cannot be read, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("E_WEIGHTS", f"Expected a readable {path.name} of a model, got none.") from error
    if not isinstance(found, dict):
        raise UsageError("E_WEIGHTS", f"Expected a JSON object in {path.name} of a model, got another.")
    return found


def _reread(path: Path) -> None:
    torch.load(path, map_location="cpu", weights_only=True)


def _scalar() -> Any:
    """The function that numpy's numbers are pickled with: it only makes a number of a type and bytes."""
    function: Any = np.float64(0).__reduce__()[0]
    return function
