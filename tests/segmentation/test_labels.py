"""Labels as nnU-Net takes them, judged by nnU-Net's own LabelManager; folds by what they promise."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.errors import CaseError, UsageError
from pipeline.segmentation.labels import LabelMap, renumbered, require_channels
from pipeline.segmentation.splits import patient_folds, rare_labels

#: BraTS in its own values: necrosis 1, oedema 2, enhancing 4.
BRATS = [("necrosis", 1), ("oedema", 2), ("enhancing", 4)]
REGIONS = {"whole": ["oedema", "necrosis", "enhancing"], "core": ["necrosis", "enhancing"], "active": ["enhancing"]}


def manager(found: LabelMap):  # type: ignore[no-untyped-def]
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    dataset = found.as_dataset()
    return LabelManager(dataset["labels"], dataset.get("regions_class_order"))


def test_labels_become_consecutive_and_the_map_leads_back() -> None:
    found = LabelMap.of([("b", 40000), ("a", 7), ("c", 12)])
    assert found.as_dataset() == {"labels": {"background": 0, "a": 1, "c": 2, "b": 3}}
    assert found.label_map == {"1": 7, "2": 12, "3": 40000}
    source = np.array([[0, 7], [40000, 12]])
    network = found.to_network(source)
    assert network.tolist() == [[0, 1], [3, 2]] and network.dtype == np.uint8
    back = renumbered(network, {0: 0, **{int(k): v for k, v in found.label_map.items()}})
    assert (back == source).all() and back.dtype == np.uint16
    assert manager(found).all_labels == [0, 1, 2, 3]


def test_an_ignored_label_is_the_highest() -> None:
    found = LabelMap.of([("unsure", 1), ("tumour", 2), ("organ", 5)], ignore="unsure")
    assert found.as_dataset()["labels"] == {"background": 0, "tumour": 1, "organ": 2, "ignore": 3}
    assert found.to_network(np.array([0, 1, 2, 5])).tolist() == [0, 3, 1, 2]
    assert manager(found).ignore_label == 3 and manager(found).all_labels == [0, 1, 2]


def test_regions_painted_by_nnunet_give_the_labels_back() -> None:
    found = LabelMap.of(BRATS, REGIONS)
    assert list(found.as_dataset()["labels"]) == ["background", "whole", "core", "active"]
    theirs = manager(found)
    assert theirs.has_regions
    truth = np.random.default_rng(0).integers(0, 4, (4, 5, 6))
    regions = np.stack([np.isin(truth, found.regions[name]) for name in found.regions]).astype(np.float32)
    painted = theirs.convert_probabilities_to_segmentation(torch.from_numpy(regions))
    assert (np.asarray(painted) == truth).all()


@pytest.mark.parametrize(
    ("values", "regions", "ignore", "words"),
    [
        ([("a", 1), ("ignore", 2), ("b", 3)], None, "b", "Expected one ignored label, got ignore and b"),
        ([("Ignore", 1), ("ignore", 2)], None, "", "Expected one ignored label"),
        ([("a", 1)], None, "b", "Expected the ignored label b among the labels, got a 1"),
        ([("a", 1), ("b", 1)], None, "", "got 1 twice"),
        ([("a", 1), ("a", 2)], None, "", "got a twice"),
        ([("background", 1)], None, "", "beside the background"),
        ([], None, "", "Expected a label to learn"),
        (BRATS, {"whole": ["tumour"]}, "", "among necrosis, oedema, enhancing, got tumour"),
        (BRATS, {"active": ["enhancing"], **REGIONS}, "", "of active that is in no later region, got none"),
        (BRATS, {"whole": ["necrosis", "oedema"], "x": ["enhancing"]}, "", "in no later region, got necrosis, oedema"),
        (BRATS, {"a": ["necrosis"], "b": ["oedema"]}, "", "got enhancing in none"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(values, regions, ignore: str, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words) as refused:
        LabelMap.of(values, regions, ignore)
    assert refused.value.code == "E_LABEL"


def test_a_value_that_is_not_declared_is_refused() -> None:
    with pytest.raises(CaseError, match=r"Expected the labels 0, 1, 2, 4, got 3, 9 too") as refused:
        LabelMap.of(BRATS).to_network(np.array([0, 9, 3, 4]))
    assert refused.value.code == "E_LABEL"


def test_channels_in_another_order_are_refused() -> None:
    require_channels(["ct", "pet"], ["ct", "pet"])
    for got in (["pet", "ct"], ["ct"], []):
        with pytest.raises(CaseError, match=r"Expected the channels ct, pet, in this order, got ") as refused:
            require_channels(["ct", "pet"], got)
        assert refused.value.code == "E_CHANNELS"


def test_folds_keep_patients_together_and_spread_every_label() -> None:
    random = np.random.default_rng(1)
    patients = {f"case{number:02d}": f"p{number // 2}" for number in range(60)}
    labels = {case: [1] + [2] * (random.random() < 0.4) + [3] * (random.random() < 0.2) for case in patients}
    folds = patient_folds(labels, patients, 5)
    assert Counter(case for fold in folds for case in fold["val"]) == Counter(list(patients))
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(patients)
        assert not {patients[case] for case in fold["train"]} & {patients[case] for case in fold["val"]}
        assert len(fold["val"]) == 12

    def uneven(order: list[str]) -> float:
        """How unevenly both labels are spread over five parts of a list of cases."""
        held = [
            [sum(label in labels[case] for case in part) for part in np.split(np.array(order), 5)] for label in (2, 3)
        ]
        return float(np.var(held, axis=1).sum())

    names = sorted(set(patients.values()))
    chance = [uneven([c for p in random.permutation(names) for c in patients if patients[c] == p]) for _ in range(200)]
    assert uneven([case for fold in folds for case in fold["val"]]) < np.quantile(chance, 0.2)
    assert folds == patient_folds(labels, patients, 5) != patient_folds(labels, patients, 5, seed=1)


def test_a_label_of_few_patients_is_named() -> None:
    labels = {"a": [1, 2], "b": [1], "c": [1], "d": [2]}
    patients = {"a": "p", "b": "q", "c": "r", "d": "p"}
    assert rare_labels(labels, patients, 3) == {2: 1}
    patient_folds(labels, patients, 3)


def test_folds_need_patients() -> None:
    with pytest.raises(UsageError) as refused:
        patient_folds({}, {}, 5)
    assert refused.value.code == "E_NO_CASES"
    for folds in (1, 2):
        with pytest.raises(UsageError, match="one patient each, got") as refused:
            patient_folds({"a": [1], "b": [1]}, {"a": "p", "b": "p"}, folds)
        assert refused.value.code == "E_FOLD"
