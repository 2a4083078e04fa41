"""Where nnU-Net works, and how it is called: in a child process whose environment Tandem sets.

nnU-Net reads its folders from the environment when it is imported, and spawns pools that import the caller's main
module again: a child with a guarded main module of its own keeps both away from the program that asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import REMEDIES, UsageError

TRAINER = "TandemTrainer"
#: What Tandem keeps beside dataset.json: channels as roles, the map of labels, patients, and the source's grids.
TANDEM = "tandem.json"
#: Of the environment: the settings of a training, as JSON.
SETTINGS = "TANDEM_TRAINER"
#: In the folder of a fold: the hash of the checkpoint by which it has left what a cascade's second stage learns from.
FOR_NEXT = "predicted_for_next_stage.txt"
#: Preset -> name of its plans.
PLANS = {
    "default": "nnUNetPlans",
    "resenc_m": "nnUNetResEncUNetMPlans",
    "resenc_l": "nnUNetResEncUNetLPlans",
    "resenc_xl": "nnUNetResEncUNetXLPlans",
    "torchres": "nnUNetPlans_torchres",
    "small": "nnUNetPlans_small",
    "pretrained": "nnUNetPlans_pretrained",
}
NETWORKS = ("unet", "dynunet", "segresnet")


def plans_name(preset: str, network: str = "unet") -> str:
    """The name of the plans of a preset and a kind of network.

    Raises:
        UsageError: E_CONFIG for one that there is not.
    """
    for name, known in ((preset, tuple(PLANS)), (network, NETWORKS)):
        if name not in known:
            raise UsageError("E_CONFIG", f"Expected one of {', '.join(known)}, got {name}.")
    return PLANS[preset] + ("" if network == "unet" else f"_{network}")


def next_stages(plans: Any, configuration: str, preprocessed: str | Path) -> list[str]:
    """The stages of a cascade that learn from a configuration, where they are preprocessed.

    Args:
        plans: nnU-Net's manager of plans.
        configuration: such as `3d_lowres`.
        preprocessed: the data set's folder.
    """
    names: list[str] = plans.get_configuration(configuration).next_stage_names or []
    folders = [Path(preprocessed) / plans.get_configuration(name).data_identifier for name in names]
    return names if all(folder.is_dir() for folder in folders) else []


@dataclass(frozen=True)
class Workspace:
    """A raw data set, and the folder that takes what is made of it.

    Attributes:
        dataset: the raw data set's folder, `DatasetXXX_Name`.
        out: takes `preprocessed/` and `results/`, in nnU-Net's layout.
        processes: that nnU-Net may spawn to read, preprocess and judge cases.
        threads: of each process.
    """

    dataset: Path
    out: Path
    processes: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if not (self.dataset / "dataset.json").is_file():
            what = f"Expected a raw data set of nnU-Net with dataset.json, got {self.dataset}."
            raise UsageError("E_NO_CASES", what, "Make one with `tandem convert nnunet`.")
        if self.processes < 1 or self.threads < 1:
            raise UsageError("E_CONFIG", f"Expected processes and threads, got {self.processes} and {self.threads}.")

    @property
    def preprocessed(self) -> Path:
        """The data set's folder of plans, folds and preprocessed cases."""
        return self.out / "preprocessed" / self.dataset.name

    def model(self, plans: str, configuration: str) -> Path:
        """The results folder of a configuration."""
        return self.out / "results" / self.dataset.name / f"{TRAINER}__{plans}__{configuration}"

    def environment(self, settings: dict[str, Any] | None = None) -> dict[str, str]:
        """The child's environment."""
        count = str(self.threads)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("nnUNet_")},
            "nnUNet_raw": str(self.dataset.parent.resolve()),
            "nnUNet_preprocessed": str((self.out / "preprocessed").resolve()),
            "nnUNet_results": str((self.out / "results").resolve()),
            "nnUNet_extTrainer": str(Path(__file__).parent / "trainers"),
            "nnUNet_compile": "f",
            "nnUNet_def_n_proc": str(self.processes),
            # of a training 0: its own process draws the batches; planning takes as many threads, so 1 at least
            "nnUNet_n_proc_DA": "0" if settings and self.processes == 1 else str(self.processes),
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # no checkpoint is trusted, not even where nnU-Net would
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count),
            "PYTHONPATH": os.pathsep.join(sys.path),
            SETTINGS: json.dumps(settings or {}),
        }

    def call(self, task: str, settings: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Let a child do a task of `pipeline.segmentation.worker`.

        Args:
            task: its function.
            settings: of a training.
            arguments: of the task, as plain JSON types.

        Returns:
            What the function gave.

        Raises:
            UsageError: what the task raised; E_INTERNAL with nnU-Net's last words when it failed otherwise.
        """
        for folder in (self.preprocessed, self.out / "results"):
            folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as place:
            answer = Path(place) / "answer.json"
            command = [sys.executable, "-m", "pipeline.segmentation", task, str(answer)]
            words = json.dumps({"dataset": self.dataset.name, **arguments})
            done = subprocess.run(
                command, input=words, env=self.environment(settings), capture_output=True, text=True, check=False
            )
            found = json.loads(answer.read_text(encoding="utf-8")) if answer.is_file() else {}
        if done.returncode == 0 and "result" in found:
            return found["result"]
        if "code" in found:
            raise UsageError(found["code"], found["message"], found["remedy"])
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"exit code {done.returncode}"]
        code = "E_CRASH" if done.returncode < 0 else "E_INTERNAL"
        raise UsageError(code, f"nnU-Net's process ended while it was to {task}: {last[0]}.", REMEDIES[code])
