"""What the stage `fuse` says to a reader: values counted here, pictures of what is there, names as plain texts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.fusion.explain import CAVEAT, Explaind
from pipeline.fusion.network import FusionNet
from pipeline.fusion.predict import FusedOutputsd
from pipeline.fusion.resample import GRID_AFFINE, GRID_SHAPE
from pipeline.fusion.tiles import TiledInferer
from pipeline.store.sections import Answer, Picture, Sections
from pipeline.volumes import volume

MODALITIES = ["ct", "pet", "mr"]
IMAGES = ["ct", "pet_aligned", "mr_aligned"]
GRID = np.diag([2.0, 2.0, 5.0, 1.0])
SHAPE = (6, 5, 4)
IN_WORDS = "calibrated by halved: 7 scans, 7 cases, 2026-02-03"


class Halved:
    """A calibration: half the logits."""

    name, in_words = "halved", "halved: 7 scans, 7 cases, 2026-02-03"

    def __init__(self, kept: tuple[bool, ...] | None = None) -> None:
        self.kept = kept
        short = SimpleNamespace(in_short=lambda: "90 % of sets; n = 7")
        promise = "The promise." if kept else ""
        self.record = SimpleNamespace(promise=promise, sets=short, notes=())

    def sets(self, logits: torch.Tensor) -> np.ndarray | None:
        return None if self.kept is None else np.array([self.kept])

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits / 2, 1 if logits.ndim == 2 else 0)


def fused(
    label_names: tuple[str, ...] = ("lesion", "organ"),
    class_names: tuple[str, ...] = ("kind_a", "kind_b"),
    available: tuple[bool, ...] = (True, False, True),
    **options: Any,
) -> tuple[FusedOutputsd, dict[Any, Any]]:
    """Six voxels of label 1 and two of label 2, and class logits 1 and 3."""
    pred = torch.zeros(len(label_names) + 1 + len(class_names), *SHAPE)
    pred[0] = 5
    pred[1, :3, :2, 0] = 9
    if len(label_names) > 1:
        pred[2, 4, 4, 2:] = 9
    pred[len(label_names) + 1 :] = torch.linspace(1, 3, len(class_names))[:, None, None, None]
    made = FusedOutputsd(
        MODALITIES, len(label_names) + 1, len(class_names), label_names, class_names, images=IMAGES, **options
    )
    case = {
        "image": volume(torch.zeros(3, *SHAPE), GRID),
        "pred": pred,
        "available": torch.tensor(available),
        GRID_AFFINE: torch.from_numpy(GRID),
        GRID_SHAPE: torch.tensor(SHAPE),
    }
    return made, made(case)


def said(**options: Any) -> Sections:
    made, case = fused(**options)
    return made.sections(case)


def pictures(sections: Sections) -> list[Picture]:
    return [picture for section in sections.sections for picture in section.pictures]


def test_what_is_missing_and_what_is_doubtful_stand_beside_the_class() -> None:
    few = Halved()
    few.record.notes = ("Too few cases: 9.",)
    (answer, *_) = said(class_calibration=few, available=(True, False, False)).answers
    assert answer.value.endswith(", calibrated, with a caveat, without PET, MR")
    assert answer.note == f"{IN_WORDS}; Too few cases: 9."


def test_class_and_volumes_are_answers_with_their_calibration() -> None:
    """A voxel is 2 x 2 x 5 mm, so 0.02 mL; half the logits are 0.5 and 1.5."""
    found = said(class_calibration=Halved())
    chance = np.exp(1.5) / (np.exp(0.5) + np.exp(1.5))
    assert found.answers == (
        Answer("Class", f"kind_b, probability {chance:.2f}, calibrated, without PET", IN_WORDS),
        Answer("Volume of lesion", "0.12 mL", "by the fusion network; voxel probabilities not calibrated"),
        Answer("Volume of organ", "0.04 mL", "by the fusion network; voxel probabilities not calibrated"),
    )
    (section,) = found.sections
    assert section.title == "Fusion: kind_b" and section.sentences == ("The network saw CT, MR.",)
    (table,) = section.tables
    assert table.columns == ("What", "Value", "Calibration")
    assert table.rows == (
        ("Probability of kind_a", f"{1 - chance:.4f}", IN_WORDS),
        ("Probability of kind_b", f"{chance:.4f}", IN_WORDS),
        ("Volume of lesion", "0.12 mL", "by the fusion network; voxel probabilities not calibrated"),
        ("Volume of organ", "0.04 mL", "by the fusion network; voxel probabilities not calibrated"),
    )


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ((True, True), "kind_a, kind_b"),
        ((False, True), "kind_b"),
        ((False, False), "none: the case is unlike the cases of the calibration"),
    ],
)
def test_the_set_of_classes_stands_beside_the_class_with_its_promise(kept: tuple[bool, ...], words: str) -> None:
    made, case = fused(class_calibration=Halved(kept))
    names = [name for name, is_in in zip(("kind_a", "kind_b"), kept, strict=True) if is_in]
    assert case["measures"]["fused_class_set"] == ", ".join(names) and case["fused_class"]["not_excluded"] == names
    found = made.sections(case)
    assert found.answers[1] == Answer("Classes not excluded", words, "90 % of sets; n = 7")
    assert found.sections[0].sentences[1] == "Classes not excluded: The promise."
    assert "fused_class_set" not in fused(class_calibration=Halved())[1]["measures"]


def test_labels_lie_over_every_image_that_the_network_saw_and_the_first_page_has_them() -> None:
    found = said()
    labels, chances = pictures(found)
    assert [panel.image for panel in labels.panels] == ["ct", "mr_aligned"]
    assert {panel.coloured.key for panel in labels.panels if panel.coloured} == {"fused_label"}
    assert all(panel.coloured and panel.coloured.names == {1: "lesion", 2: "organ"} for panel in labels.panels)
    assert (labels.rank, chances.rank) == (30, 0) and labels.focus == "fused_label"
    shown = [(panel.name, panel.image, panel.coloured.channel) for panel in chances.panels if panel.coloured]
    assert shown == [("P(lesion)", "ct", 1), ("P(organ)", "ct", 2)]
    (regions,) = found.regions
    assert (regions.key, regions.over) == ("fused_label", ("ct", "mr_aligned"))
    assert said(available=(False, True, False)).regions[0].over == ("pet_aligned",)
    assert said(sees=("mr",)).regions[0].over == ("mr_aligned",)


def test_more_labels_than_columns_take_another_picture() -> None:
    names = tuple(f"part_{number}" for number in range(1, 8))
    _, first, second = pictures(said(label_names=names))
    assert [len(first.panels), len(second.panels)] == [5, 2]
    assert (first.key, second.key) == ("fused_probabilities_1", "fused_probabilities_2")
    assert second.title == f"{first.title}, continued"


def test_a_network_of_voxels_alone_has_no_class_and_one_of_classes_alone_no_picture() -> None:
    voxels, classes = said(class_names=()), said(label_names=("lesion",))
    assert voxels.sections[0].title == "Fusion" and [a.label for a in voxels.answers] == [
        "Volume of lesion",
        "Volume of organ",
    ]
    assert classes.regions[0].names == {1: "lesion"}
    made = FusedOutputsd(MODALITIES, 0, 2, (), ("a", "b"), images=IMAGES)
    case = made({"pred": torch.tensor([0.0, 1.0])[:, None, None, None], "available": torch.tensor([True] * 3)})
    alone = made.sections(case)
    assert not pictures(alone) and not alone.regions and not alone.displays
    assert [answer.label for answer in alone.answers] == ["Class"]


def test_names_are_plain_texts_and_stay_in_their_cells() -> None:
    """A comma, a tag and an override of direction: one row each, and nothing that hides what stands beside it."""
    names = ("a, 2 organ", "<b>x</b>\n\u202ey")
    found = said(label_names=names, class_names=("{{x}}", "<script>\u202e"))
    clean = ["a, 2 organ", "<b>x</b>  y"]
    assert found.regions[0].names == dict(enumerate(clean, 1))
    assert [answer.label for answer in found.answers] == ["Class", *(f"Volume of {name}" for name in clean)]
    assert found.answers[0].value.startswith("<script>, probability ")
    text = json.dumps(found.as_json(), ensure_ascii=False)
    assert "\u202e" not in text and "\\n" not in text
    assert len(found.sections[0].tables[0].rows) == 4


@pytest.mark.parametrize("calibration", [None, Halved()])
def test_what_is_said_is_read_back_as_it_was(calibration: Halved | None) -> None:
    found = said(class_calibration=calibration)
    assert Sections.from_json(json.loads(json.dumps(found.as_json()))) == found


# ---- why -------------------------------------------------------------------------------------------------------------


def why(*methods: str, class_names: tuple[str, ...] = ("benign", "malignant")) -> tuple[dict[Any, Any], Sections]:
    torch.manual_seed(0)
    network = FusionNet(["ct", "mr"], width=8, levels=3).eval()
    made = Explaind(methods, network, TiledInferer((16,) * 3), class_names, images=["ct", "mr_aligned"])
    image = torch.randn((2, 16, 16, 16), generator=torch.Generator().manual_seed(1))
    case = made({"image": volume(image, np.eye(4)), "available": torch.tensor([True, True])})
    return case, made.sections(case)


def test_every_map_lies_over_the_image_of_its_modality() -> None:
    case, found = why("gradcam", "gates", "occlusion")
    (section,) = found.sections
    assert section.title == f"Why {case['measures']['fused_explained_class']}" and section.sentences == (CAVEAT,)
    (picture,) = section.pictures
    shown = [(panel.name, panel.image, panel.coloured) for panel in picture.panels]
    assert [(name, image) for name, image, _ in shown] == [
        ("Grad-CAM CT", "ct"),
        ("Grad-CAM MR", "mr_aligned"),
        ("Gate CT", "ct"),
        ("Gate MR", "mr_aligned"),
        ("Occlusion", "ct"),
    ]
    coloured = [over for *_, over in shown if over]
    assert [over.channel for over in coloured] == [0, 1, 0, 1, 0]
    assert [over.signed for over in coloured] == [False, False, False, False, True]
    values = case["fused_gradcam"].numpy()
    assert coloured[0].limit == pytest.approx(np.percentile(values[values > 0], 99)) and coloured[0].beyond
    assert coloured[2].limit == 1 and not coloured[2].beyond
    assert coloured[4].limit == pytest.approx(np.abs(case["fused_occlusion"].numpy()).max())
    assert picture.focus == "fused_occlusion" and CAVEAT in picture.caption and picture.rank == 0
    assert Sections.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_the_table_says_what_the_record_says() -> None:
    case, found = why("gates", "occlusion")
    measures, (table,) = case["measures"], found.sections[0].tables
    assert "Part of Grad-CAM" not in table.columns and len(table.columns) == 5  # nobody asked for it
    for (name, gate, chance, change, other), key in zip(table.rows, ("ct", "mr"), strict=True):
        assert name == key.upper()
        assert float(gate) == pytest.approx(measures[f"fused_gate_share_{key}"], rel=1e-3)
        assert float(chance) == pytest.approx(measures[f"fused_class_probability_without_{key}"], rel=1e-3)
        assert float(change) == pytest.approx(measures[f"fused_class_probability_change_without_{key}"], abs=1e-3)
        assert change[0] in "+-" and other == measures[f"fused_class_without_{key}"]


def test_nobody_asked_why() -> None:
    assert not why()[1]
