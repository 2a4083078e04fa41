"""Trials of the `fuse` bundle: variants x seeds x folds, each trained, judged and calibrated once, and never twice.

A trial runs the bundle's own configurations. One that is done is not run again; one that fails is recorded with its
code, and the others go on. `pipeline.comparison.classification` puts together what the trials have found.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.columns import read_cells
from pipeline.console import echo, quiet_libraries
from pipeline.errors import PipelineError, UsageError, pipeline_cause, root_words
from pipeline.run.options import workflow
from pipeline.shipped import shipped
from pipeline.store.files import run_lock, save_text, sha256_file

DONE, FAILED = "done", "failed"
RECORD = "trial.json"
#: Judged on the fold that was not learned from; calibrations are fitted on it.
EVALUATION = "evaluation"


@dataclass(frozen=True)
class Variant:
    """One kind of network to compare.

    Attributes:
        name: of its folder, and in tables and charts.
        overlays: of the bundle, such as `early` or `ct_only`, in order.
        settings: keys of `train.yaml`, over those of the protocol.
        judgements: beside those of the protocol, for this variant alone.
    """

    name: str
    overlays: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    judgements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        variant: what is trained.
        seed: of its weights and draws.
        fold: the fold that is not learned from.
    """

    variant: Variant
    seed: int = 0
    fold: int = 0

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.variant.name}, seed {self.seed}, fold {self.fold}"


@dataclass(frozen=True)
class Protocol:
    """What all trials have in common.

    No fold is used to choose an epoch: the network that is judged is the last one, after the same number of epochs.

    Attributes:
        out: the folder that takes the trials.
        settings: keys of `train.yaml`: at least `dataset_dir`; folds are those of `fold_seed` 0 unless it is given.
        judgements: name of a folder in the trial -> keys of `evaluate.yaml`, such as `test_table`.
        calibration: the method that is fitted on `evaluation`; empty for none.
        tables: seed -> `table_name`, where every seed has cases of its own to learn from.
        among: names of the cases whose judgements are compared; of all when empty.
    """

    out: Path
    settings: Mapping[str, Any]
    judgements: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {EVALUATION: {}})
    calibration: str = "temperature"
    tables: Mapping[int, str] = field(default_factory=dict)
    among: frozenset[str] = frozenset()

    def folder(self, trial: Trial) -> Path:
        """Where a trial's files are."""
        return self.out / "trials" / trial.variant.name / f"seed-{trial.seed}" / f"fold-{trial.fold}"

    def settings_of(self, trial: Trial) -> dict[str, Any]:
        """Every key of `train.yaml` that a trial sets."""
        table = {"table_name": self.tables[trial.seed]} if trial.seed in self.tables else {}
        return {
            "bundle_root": str(shipped("bundles", "fuse")),
            "fold_seed": 0,
            "patience": 0,
            **self.settings,
            **trial.variant.settings,
            **table,
            "seed": trial.seed,
            "fold": trial.fold,
            "output_dir": str(self.folder(trial)),
        }

    def judgements_of(self, trial: Trial) -> dict[str, Mapping[str, Any]]:
        """Every judgement of a trial: name -> keys of `evaluate.yaml`."""
        return {**self.judgements, **trial.variant.judgements}

    def key(self, trial: Trial) -> str:
        """A hash of all that a trial depends on: settings, judgements, tables and their images, Tandem's version."""
        settings, judgements = self.settings_of(trial), self.judgements_of(trial)
        tables = [settings.get("table_name", "cases.csv"), *(j.get("test_table", "") for j in judgements.values())]
        paths = [Path(settings["dataset_dir"]) / name for name in tables if name]
        content = [
            {
                name: value
                for name, value in settings.items()
                if name not in ("output_dir", "dataset_dir", "bundle_root")
            },
            list(trial.variant.overlays),
            {name: dict(judgement) for name, judgement in judgements.items()},
            [self.calibration, __version__],
            [sha256_file(path) if path.is_file() else "" for path in paths],
            [_images_of(path) for path in paths if path.is_file()],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _images_of(table: Path) -> list[str]:
    """Hashes of the files that a table names, in its order."""
    cells = [table.parent / cell for row in read_cells(table, "a table of cases (.csv)") for cell in row if cell]
    return [_sha256_of(path, path.stat().st_size, path.stat().st_mtime_ns) for path in cells if path.is_file()]


@functools.cache
def _sha256_of(path: Path, size: int, changed_ns: int) -> str:
    """Every trial asks for the same files: each is read once, and again when it has changed."""
    return sha256_file(path)


def trials_of(variants: Sequence[Variant], seeds: Sequence[int], folds: Sequence[int]) -> list[Trial]:
    """Every variant with every seed and fold.

    Raises:
        UsageError: E_NAMES when two variants have one name, or a name is none for a folder.
    """
    names = [item.name for item in variants]
    bad = [name for name in names if names.count(name) > 1 or name in ("", "..") or name != Path(name).name]
    if bad:
        raise UsageError("E_NAMES", f"Expected variants with names of their own and without slashes, got {bad[0]!r}.")
    return [Trial(*found) for found in product(variants, seeds, folds)]


def run_trials(protocol: Protocol, trials: Sequence[Trial], until_s: float = float("inf")) -> list[dict[str, Any]]:
    """Run the trials that are not done.

    Args:
        protocol: what they have in common.
        trials: which.
        until_s: no trial is started after so many seconds; run the command again for the rest.

    Returns:
        The records of the trials that have one: `status`, `seconds`, `parameters`, `flops`, or `code` and `message`.

    Raises:
        UsageError: E_BUSY, E_OUT.
    """
    started = time.monotonic()
    with run_lock(protocol.out):
        for trial in trials:
            if time.monotonic() - started < until_s:
                run_trial(protocol, trial)
    return [record for trial in trials if (record := read_trial(protocol, trial))]


def run_trial(protocol: Protocol, trial: Trial) -> dict[str, Any]:
    """Train, judge and calibrate, unless it is done; a trial that was stopped begins anew.

    Returns:
        Its record, which is also written as `trial.json` beside `last.pt`, `curves.csv` and a folder a judgement.
    """
    known = read_trial(protocol, trial)
    if known.get("status") == DONE:
        return known
    echo(f"{trial.name} …")
    folder = protocol.folder(trial)
    if folder.is_dir():  # of a trial that was stopped, has failed or was another one: nothing of it stays
        shutil.rmtree(folder)
    about = {"variant": trial.variant.name, "seed": trial.seed, "fold": trial.fold}
    record: dict[str, Any] = {**about, "key": protocol.key(trial)}
    try:
        record |= {**_work(protocol, trial), "status": DONE}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is recorded, and the other trials go on
        record |= {"status": FAILED, **_described(error)}
        echo(f"{trial.name}: {record['code']}: {record['message']} {record['remedy']}".rstrip(), error=True)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    save_text(folder / RECORD, text)
    return record


def read_trial(protocol: Protocol, trial: Trial) -> dict[str, Any]:
    """The record of a trial; nothing where it has none, or one of other settings, tables or another version."""
    path = protocol.folder(trial) / RECORD
    found = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    return found if found.get("key") == protocol.key(trial) else {}


def all_done(protocol: Protocol, variant: Variant, seeds: Sequence[int], folds: Sequence[int]) -> bool:
    """Whether every trial of a variant is done."""
    return all(read_trial(protocol, trial).get("status") == DONE for trial in trials_of([variant], seeds, folds))


def run_bundle(names: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Run configurations of the bundle, as `python -m monai.bundle run` does.

    Args:
        names: of files in its `configs/`, without their suffix; each overlays those before it.
        settings: keys and their values.

    Raises:
        SystemExit: 2 when they cannot run; the `PipelineError` is its context.
    """
    quiet_libraries()
    configs = shipped("bundles", "fuse", "configs")
    made = workflow([configs / f"{name}.yaml" for name in names], settings)
    made.initialize()
    made.run()


def _work(protocol: Protocol, trial: Trial) -> dict[str, Any]:
    settings, folder = protocol.settings_of(trial), protocol.folder(trial)
    train = ["train", *(f"overlays/{name}" for name in trial.variant.overlays)]
    seconds = {"training": _timed(train, settings)}
    for name, judgement in protocol.judgements_of(trial).items():
        asked = {"report": False, **judgement, "weights": str(folder / "last.pt"), "output_dir": str(folder / name)}
        seconds[name] = _timed([*train, "evaluate"], {**settings, **asked})
    found = {"seconds": seconds, **cost_of(folder / "last.pt")}
    if not protocol.calibration:
        return found
    calibration = _calibrated(folder, protocol.calibration)
    if calibration != DONE:
        echo(f"{trial.name}: not calibrated: {calibration}", error=True)
    return {**found, "calibration": calibration}


def cost_of(weights: Path) -> dict[str, int]:
    """Parameters of a trained network, and floating-point operations of one patch.

    A multiplication and an addition are two operations; convolutions and matrix products are counted, those of
    attention among them.

    Args:
        weights: a checkpoint.

    Returns:
        `parameters` and `flops`.

    Raises:
        UsageError: E_WEIGHTS, E_CHECKPOINT.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from pipeline.fusion.checkpoint_file import load_trained

    trained = load_trained(weights)
    image = trained.network.example(trained.preparation.patch)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # which the counter cannot look into
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            trained.network(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    parameters = sum(parameter.numel() for parameter in trained.network.parameters())
    return {"parameters": parameters, "flops": int(counter.get_total_flops())}


def _calibrated(folder: Path, method: str) -> str:
    """Calibrate; a fold that is too easy or too small for it is no failure of the trial, and it is said."""
    try:
        run_bundle(["calibrate"], {"output_dir": str(folder / EVALUATION), "method": method})
    except SystemExit as error:
        described = _described(error)
        return f"{described['code']}: {described['message']}"
    return DONE


def _timed(names: Sequence[str], settings: Mapping[str, Any]) -> float:
    """Run configurations; processor seconds of this process, which a busy machine does not change."""
    started = time.process_time()
    run_bundle(names, settings)
    return round(time.process_time() - started, 2)


def _described(error: BaseException) -> dict[str, str]:
    known: PipelineError | None = pipeline_cause(error)
    if known is None:
        return {"code": "E_INTERNAL", "message": root_words(error), "remedy": ""}
    return {"code": known.code, "message": known.message, "remedy": known.remedy}
