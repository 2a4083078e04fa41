"""The `fuse` section of a data spec: with which weights a run's aligned images are fused, and what the results mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, StrictBool

from pipeline.shipped import shipped_model
from pipeline.spec.explain import Model


class Fuse(Model):
    """Which network looks at the cases, and which names its answers have.

    Files are named by their path, or by their name alone where they come with Tandem (bundles/fuse/models).

    Attributes:
        weights: what `train.yaml` has written.
        class_calibration: what `calibrate.yaml` has written; without it probabilities are the network's own, and every
            record and report says so.
        voxel_calibration: likewise.
        table_file: a CSV with `case_id` and the further numbers that the network was trained with;
            `radiomics_by_case.csv` is what the run's own stage `radiomics` has written.
        roles: modality of the network -> role, where they have other names.
        class_names: of the classes, in order.
        label_names: of the labels above 0.
        explain: maps of why, each at a cost of its own.
        engine: what runs the network.
        bfloat16_on_cpu: whether processors count in bfloat16, too.
    """

    weights: str = ""
    class_calibration: str = ""
    voxel_calibration: str = ""
    table_file: str = ""
    roles: dict[str, str] = Field(default={})
    class_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    explain: tuple[Literal["gradcam", "gates", "occlusion"], ...] = ()
    engine: Literal["torch", "openvino"] = "torch"
    bfloat16_on_cpu: StrictBool = False

    def file(self, key: str, run: str | Path = "") -> str:
        """The path of a file: `file("weights")`; empty where the section names none.

        Args:
            key: of the section.
            run: a run folder in which a file named by its name alone is looked for, too, such as the table of features.
        """
        return shipped_model("fuse", str(getattr(self, key)), *([Path(run)] if str(run) else []))
