"""The comparison of fusion strategies on simulated mechanisms: what is trained, on which cases, by which budget."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.comparison.trials import EVALUATION, Protocol, Trial, Variant, read_trial, run_trials, trials_of
from pipeline.store.files import save_text
from tests.phantoms.mechanism_files import HU_OF_ONE, HU_OF_ZERO, write_mechanism_cases
from tests.phantoms.mechanisms import MECHANISMS, Mechanism, mechanism_cases

TEST = "test"
CALIBRATED = "calibrated"
#: With class heads alone, two modalities and three levels, these widths give every variant 110 to 124 thousand
#: parameters: ± 6 %.
WIDTH, ONE_ENCODER_WIDTH = 8, 12
ONE_ENCODER = {"network_def::width": ONE_ENCODER_WIDTH}
#: The network with modality dropout learns for so many times the epochs of the others.
DROPOUT_TIMES = 3
TEST_SEED, LARGE_SEED = 900, 901


@dataclass(frozen=True)
class Scale:
    """How large the comparison is.

    Attributes:
        training: cases that each seed's networks learn from.
        draws: how many of them an epoch draws.
        validation: cases of the validation curve.
        test: fresh cases that all networks of a mechanism are judged by.
        epochs: of each training.
        seeds: each with weights, draws and training cases of its own.
        calibrated_training: cases that the calibrated network learns from.
        calibrated_draws: how many of them an epoch draws.
        calibrated_validation: cases that its calibration is fitted on.
        calibrated_epochs: of its training.
    """

    training: int = 1200
    draws: int = 300
    validation: int = 40
    test: int = 500
    epochs: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)
    calibrated_training: int = 4000
    calibrated_draws: int = 1000
    calibrated_validation: int = 400
    calibrated_epochs: int = 16


@dataclass(frozen=True)
class CaseTable:
    """Simulated cases and their table; its name says all that it depends on, so that one that is there can stay.

    Attributes:
        mechanism: of the cases.
        training: how many are learned from: fold 1.
        held_out: how many are judged by: fold 0.
        seed: of the simulation.
    """

    mechanism: Mechanism
    training: int
    held_out: int
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.mechanism}-{self.seed}-{self.training}-{self.held_out}.csv"

    def write(self, folder: Path) -> None:
        """Simulate, unless it is there; every case is a patient of its own."""
        if (folder / self.name).is_file():
            return
        part = Path(self.name).stem
        count = self.training + self.held_out
        write_mechanism_cases(folder / part, self.mechanism, count, self.seed, cases_each=1, mr_of_zero=HU_OF_ZERO)
        with (folder / part / "cases.csv").open(newline="", encoding="utf-8") as stream:
            rows = [_placed(row, part, int(place < self.training)) for place, row in enumerate(csv.DictReader(stream))]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        save_text(folder / self.name, text.getvalue())


@dataclass(frozen=True)
class Plan:
    """One group of trials and the cases that they share.

    Attributes:
        name: of its folder.
        mechanism: of the cases.
        protocol: of the trials.
        variants: which.
        seeds: which.
        tables: that the trials read.
    """

    name: str
    mechanism: Mechanism
    protocol: Protocol
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    tables: tuple[CaseTable, ...]
    folds: tuple[int, ...] = (0,)

    @property
    def trials(self) -> list[Trial]:
        """All trials, seed by seed."""
        return [trial for seed in self.seeds for trial in trials_of(self.variants, [seed], self.folds)]


def plans(out: Path, scale: Scale = Scale()) -> list[Plan]:
    """A plan for each mechanism, and one for the calibrated network; their folders lie side by side in `out`."""
    return [*(_mechanism_plan(out, mechanism, scale) for mechanism in MECHANISMS), _calibrated_plan(out, scale)]


def run_plans(found: Sequence[Plan], until_s: float = float("inf")) -> None:
    """Simulate what is not there, and run the trials that are not done (`run_trials`), seed by seed.

    Args:
        found: the plans.
        until_s: no trial is started after so many seconds; run it again for the rest.
    """
    started = time.monotonic()
    for seed in sorted({seed for plan in found for seed in plan.seeds}):
        for plan in found:
            left = until_s - (time.monotonic() - started)
            trials = [trial for trial in plan.trials if trial.seed == seed]
            if trials and left > 0:
                for table in plan.tables:
                    table.write(Path(plan.protocol.settings["dataset_dir"]))
                run_trials(plan.protocol, trials, left)


def trials_left(found: Sequence[Plan]) -> int:
    """How many trials have not been run; a trial that has failed has been."""
    return sum(not read_trial(plan.protocol, trial) for plan in found for trial in plan.trials)


def true_posterior(
    mechanism: Mechanism, scale: Scale = Scale()
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Labels and true posteriors of class 1 of the test cases, in their order: (N,) each."""
    cases = mechanism_cases(mechanism, scale.test, TEST_SEED)
    return cases.labels, cases.posterior


def _mechanism_plan(out: Path, mechanism: Mechanism, scale: Scale) -> Plan:
    test = CaseTable(mechanism, 0, scale.test, TEST_SEED)
    hidden = {f"without_{name}": {"test_table": test.name, "hidden_modalities": [name]} for name in ("ct", "mr")}
    intermediate = Variant("intermediate", (), {}, hidden if mechanism == "additive" else {})
    variants = [Variant("early", ("early",), ONE_ENCODER), intermediate, Variant("late", ("late",))]
    if mechanism == "texture":  # one modality alone is the same noise in both classes
        variants.append(Variant("deep concatenation", ("intermediate_concat",), {"network_def::class_levels": 1}))
    else:
        alone = [Variant(f"{name.upper()} alone", (f"{name}_only",), ONE_ENCODER) for name in ("ct", "mr")]
        shuffled = Variant("intermediate, shuffled MR", (), {"shuffled_modalities": ["mr"]})
        variants = [*alone, *variants, shuffled]
    if mechanism == "additive":
        # three tasks in one network: both modalities, and each alone
        longer = {"max_epochs": DROPOUT_TIMES * scale.epochs, "val_interval": scale.epochs, "modality_dropout": 0.5}
        variants.append(Variant("intermediate, dropout", (), longer, hidden))
    settings = _settings(out / mechanism / "cases", scale.epochs, scale.draws)
    tables = {seed: CaseTable(mechanism, scale.training, scale.validation, seed) for seed in scale.seeds}
    names = {seed: table.name for seed, table in tables.items()}
    protocol = Protocol(out / mechanism, settings, {TEST: {"test_table": test.name}}, "", names)
    return Plan(mechanism, mechanism, protocol, tuple(variants), scale.seeds, (test, *tables.values()))


def _calibrated_plan(out: Path, scale: Scale) -> Plan:
    settings = _settings(out / CALIBRATED / "cases", scale.calibrated_epochs, scale.calibrated_draws)
    test = CaseTable("additive", 0, scale.test, TEST_SEED)
    large = CaseTable("additive", scale.calibrated_training, scale.calibrated_validation, LARGE_SEED)
    judgements: dict[str, dict[str, Any]] = {EVALUATION: {}, TEST: {"test_table": test.name}}
    protocol = Protocol(out / CALIBRATED, settings, judgements, "temperature", {0: large.name})
    return Plan(CALIBRATED, "additive", protocol, (Variant("intermediate"),), (0,), (test, large))


def _settings(data: Path, epochs: int, draws: int) -> dict[str, Any]:
    return {
        "dataset_dir": str(data),
        "device": "cpu",
        "patch": [16, 16, 16],
        # both images are simulated on one scale: one window shows -3 to 5 standard deviations of the noise
        "ct_modalities": ["ct", "mr"],
        "ct_window": [HU_OF_ZERO + HU_OF_ONE, 8 * HU_OF_ONE],
        "augmentation": False,
        "labels": 0,
        "network_def::levels": 3,
        "network_def::width": WIDTH,
        "network_def::deep": 0,
        "network_def::dropout": 0.0,
        "modality_dropout": 0.0,
        "max_epochs": epochs,
        "val_interval": max(1, epochs // 4),
        "warmup": 0,
        "rate": 0.005,
        "train::sampler::draws": draws,
        "batch": 8,
        "cache_rate": 1.0,
    }


def _placed(row: Mapping[str, str], part: str, fold: int) -> dict[str, str]:
    """A row of a part's own table as one of the common folder's."""
    files = {key: f"{part}/{row[key]}" for key in ("ct", "mr", "mask")}
    names = {key: f"{part}-{row[key]}" for key in ("case_id", "patient_id")}
    return {**row, **files, **names, "fold": str(fold)}
