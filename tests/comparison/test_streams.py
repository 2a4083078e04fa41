"""Strategies for inputs that share no grid: equal budgets, what each is given, a cohort from end to end, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.comparison.cohort import compare, headline
from pipeline.comparison.streams import chosen_streams, notes_of, stream_strategies
from pipeline.errors import UsageError
from pipeline.fusion.network import parameter_count
from pipeline.fusion.stream_net import EARLY_CAVEAT, StreamNet
from tests.phantoms.stream_cases import READERS, STREAMS, write_stream_cases

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


@pytest.mark.slow
def test_a_cohort_of_streams_is_compared_from_end_to_end(tmp_path: Path) -> None:
    write_stream_cases(tmp_path / "data", 16, streams=FLAT)
    settings = {**READERS, **{name: value for name, value in COMMON.items() if "::" in name}}
    settings |= {"device": "cpu", "max_epochs": "1", "warmup": "0", "batch": "4"}
    found = compare(
        tmp_path / "data" / "cases.csv", tmp_path / "out", folds=2, seeds=1, settings=settings, streams=FLAT
    )
    names = [headline(found, item.name).split(":")[0] for item in found.variants]
    assert names == ["cxr alone", "cough alone", "early", "intermediate", "late"]
    assert EARLY_CAVEAT in (tmp_path / "out" / "report" / "report.html").read_text()


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
