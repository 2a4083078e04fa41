"""Strategies for inputs that share no grid: equal budgets, what each is given, a cohort from end to end, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipeline.comparison.cohort import compare, headline
from pipeline.comparison.stream_report import NO_WINNER, shuffled_judgements
from pipeline.comparison.streams import chosen_streams, notes_of, stream_strategies
from pipeline.errors import CaseError, UsageError
from pipeline.fusion.network import parameter_count
from pipeline.fusion.stream_net import EARLY_CAVEAT, StreamNet
from pipeline.learning.table import Row, read_table, with_folds
from tests.phantoms.stream_cases import STREAMS, write_stream_cases
from tests.phantoms.streams.cohort import Shown, simulate_streams
from tests.phantoms.streams.files import write_cohort

FLAT = {name: STREAMS[name] for name in ("cxr", "cough")}
COMMON: dict[str, Any] = {"classes": 2, "network_def::levels": 2, "network_def::token": 16, "network_def::width": 8}


def test_strategies_have_equal_budgets() -> None:
    streams = chosen_streams(STREAMS, None)
    found = stream_strategies(streams, COMMON)
    assert [item.name for item in found] == ["mr alone", "cxr alone", "cough alone", "intermediate", "late"]
    counts = []
    for item in found:
        assert item.overlays == ("streams",)
        seen = item.settings["modalities"]
        arguments = {"mode": item.settings["network_def::mode"], "width": item.settings["network_def::width"]}
        sizes = {name: STREAMS[name]["size"] for name in seen}
        counts.append(parameter_count({**arguments, "sizes": sizes, "levels": 2, "token": 16}, StreamNet))
    assert max(abs(np.array(counts) / counts[3] - 1)) < 0.1
    assert found[3].settings["network_def::width"] == 8
    assert "one dimension" in notes_of(found)[0]


def test_early_fusion_is_compared_where_all_streams_have_one_dimension() -> None:
    found = stream_strategies(chosen_streams(FLAT, None), COMMON)
    assert [item.name for item in found] == ["cxr alone", "cough alone", "early", "intermediate", "late"]
    assert notes_of(found) == [EARLY_CAVEAT]
    alone = stream_strategies(chosen_streams(STREAMS, ["cxr"]), COMMON)
    assert [item.name for item in alone] == ["cxr alone"] and notes_of(alone) == []


def test_weights_from_elsewhere_reach_the_encoders_that_there_are() -> None:
    common = {**COMMON, "encoder_weights": {"cxr": "a.pt"}}
    given = {
        item.name: item.settings.get("encoder_weights")
        for item in stream_strategies(chosen_streams(FLAT, None), common)
    }
    file = {"cxr": "a.pt"}
    assert given == {
        "cxr alone": file,
        "cough alone": None,
        "early": {"all": "a.pt"},
        "intermediate": file,
        "late": file,
    }


FILES = {
    "cxr": {"kind": "image", "size": [24, 24]},
    "ct": {"kind": "image", "size": [16, 20]},
    "cough": {"kind": "sound", "size": [8, 16], "seconds": 0.5},
}
QUICK = {"device": "cpu", "max_epochs": "1", "warmup": "0", "batch": "4"}


def cohort_of_files(folder: Path, pairing: Literal["patient", "class"] = "class") -> Path:
    shown = {name: Shown("image", (24, 24)) for name in ("cxr", "ct")} | {"cough": Shown("sound", (8000,))}
    return write_cohort(folder, simulate_streams("additive", 24, 0, shown, pairing=pairing))


@pytest.mark.slow
def test_a_cohort_of_streams_is_compared_from_end_to_end(tmp_path: Path) -> None:
    """Of cases that are no patients: no winner, controls, and what streams of other patients cost."""
    table = cohort_of_files(tmp_path / "data")
    rows = with_folds(read_table(table, list(FILES), 2), 2)
    for lacking in (next(row for row in rows if row.fold == fold) for fold in (0, 1)):
        table.write_text(table.read_text().replace(f"cough/{lacking.case_id}.wav", ""))
    settings = {**{name: value for name, value in COMMON.items() if "::" in name}, **QUICK}
    found = compare(
        table,
        tmp_path / "out",
        folds=2,
        seeds=1,
        settings=settings,
        streams=FILES,
        judged=[0],
        class_names=["well", "ill"],
    )
    assert {item.case_count for item in found.evaluations} == {11}
    assert found.said[0].startswith("2 of 24 cases lack an input.") and "by the 22 that lack none" in found.said[0]
    learned = {name: len(read_table(tmp_path / "out" / name, ["cxr"], 2)) for name in ("cases.csv", "cases_cough.csv")}
    assert learned == {"cases.csv": 24, "cases_cough.csv": 22}
    names = [headline(found, item.name).split(":")[0] for item in found.variants]
    assert names == ["cxr alone", "ct alone", "cough alone", "early", "intermediate", "late"]
    assert found.said[1] == NO_WINNER
    best = max(found.auroc(name).value or 0 for name in names)
    assert best == pytest.approx(max(item.auroc_of_mean for item in found.variants))
    controls = [text.split(" alone")[0] for text in found.said[2:5]]
    assert controls == ["File facts", "Frame", "Thumbnail"]
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    for text in (
        "<td>ill</td>",
        EARLY_CAVEAT,
        NO_WINNER[:60],
        "Controls that see no disease",
        "Streams of other patients: late",
    ):
        assert text in page
    assert "alone</h2>" not in page.split("Streams of other patients", 1)[1]
    fold = tmp_path / "out" / "trials" / "late" / "seed-0" / "fold-0"
    plain, within, across = (
        np.load(fold / name / "class_logits.npy") for name in ("evaluation", "within-cxr", "across-cxr")
    )
    assert plain.shape == within.shape == across.shape
    assert not np.array_equal(plain, within) and not np.array_equal(within, across)
    assert {row.pairing for row in read_table(tmp_path / "out" / "cases.csv", ["cxr"], 2)} == {"class"}


def test_streams_are_shuffled_within_the_class_where_every_fold_has_two_patients_of_it() -> None:
    rows = [Row(f"c{at}", f"p{at}", {}, at % 2, None, (), at % 4 // 2) for at in range(8)]
    assert set(shuffled_judgements(rows, ["a", "b"])) == {"within-a", "within-b", "across-a", "across-b"}
    assert set(shuffled_judgements(rows[:7], ["a", "b"])) == {"across-a", "across-b"}
    one = [replace(row, patient_id=f"p{number % 4}") for number, row in enumerate(rows)]
    assert set(shuffled_judgements(one, ["a", "b"])) == {"across-a", "across-b"}
    assert shuffled_judgements(rows, ["a"]) == {}


def test_equal_pictures_in_two_folds_and_facts_that_no_column_tells_are_refused(tmp_path: Path) -> None:
    table = cohort_of_files(tmp_path / "data")
    with pytest.raises(UsageError, match=r"E_NAMES.*2 different names"):
        compare(table, tmp_path / "out", folds=2, streams=FILES, class_names=["well"])
    with pytest.raises(UsageError, match=r"E_FOLD.*got 2; there are 0, 1"):
        compare(table, tmp_path / "out", folds=2, streams=FILES, judged=[2])
    with pytest.raises(UsageError, match=r"E_OPTION.*got source"):
        compare(table, tmp_path / "out", ["cxr", "cough"], [], folds=2, facts=["source"])
    with pytest.raises(UsageError, match=r"E_TABLE.*sauce"):
        compare(table, tmp_path / "out", folds=2, streams=FILES, facts=["sauce"])
    rows = with_folds(read_table(table, list(FILES), 2), 2)
    for number, name in ((3, "cough"), (5, "cxr")):
        rows[number].images[name].rename(tmp_path / name)
        rows[number].images[name].write_bytes((tmp_path / name).read_bytes()[:60])
    whose = rf"2 of 24 cases cannot be read; cough of {rows[3].case_id}"
    with pytest.raises(CaseError, match=rf"E_SOUND.*{whose}"):
        compare(table, tmp_path / "out", folds=2, streams=FILES)
    for number, name in ((3, "cough"), (5, "cxr")):
        (tmp_path / name).rename(rows[number].images[name])
    first, second = (next(row for row in rows if row.fold == fold) for fold in (0, 1))
    second.images["cxr"].write_bytes(first.images["cxr"].read_bytes())
    with pytest.raises(UsageError, match="E_DUPLICATE"):
        compare(table, tmp_path / "out", folds=2, streams=FILES)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"modalities": ["cx"]}, r"E_MODALITY.*got cx; did you mean `cxr`"),
        ({"ct_modalities": ["cxr"]}, r"E_OPTION.*no ct_modalities"),
        ({"settings": {"patch": "[3]"}}, r"E_OPTION.*got patch"),
        ({"settings": {"network_def::tokn": "3"}}, r"E_OPTION.*did you mean network_def::token"),
        ({"streams": "no_such_spec"}, r"E_SPEC"),
        ({"streams": {"cxr": {"kind": "image"}}}, r"E_CONFIG.*lacks the key size"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    write_stream_cases(tmp_path / "data", 4, streams=FLAT)
    with pytest.raises(UsageError, match=message):
        compare(tmp_path / "data" / "cases.csv", tmp_path / "out", **{"streams": FLAT, **more})
    assert not (tmp_path / "out").exists()
