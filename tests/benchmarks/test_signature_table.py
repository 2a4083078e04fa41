"""Tables of signatures: what is read, and which are refused; leaks above all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.signature.table import Columns, feature_named, read_cohort, volume_of
from pipeline.errors import UsageError
from tests.benchmarks.cohorts import planted, write


def test_a_table_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort = planted(30, 5)
    event = cohort.outcome.event.astype(int)
    more: dict[str, Sequence[object]] = {
        "Patient ID": [number // 2 for number in range(30)],
        "flags": ["few_voxels"] * 30,
        "site": ["a", "b"] * 15,
        "age": [*range(29), ""],
        "known": ["" if number == 4 else event[number] for number in range(30)],
    }
    path = write(tmp_path / "t.csv", cohort, more)
    found = read_cohort(path, Columns("known", batch="site", ignore=("outcome",)))
    assert len(found.case_ids) == 29 and found.patients.max() == 14
    assert found.features == (*cohort.features, "age") and np.isnan(found.values[-1, -1])
    np.testing.assert_array_equal(found.values[:, 0], np.delete(cohort.values[:, 0], 4))
    assert found.batches[:2] == ("a", "b")
    said = capsys.readouterr()
    assert "1 of 30 cases without an outcome" in said.out + said.err and "flags" in said.out + said.err
    assert volume_of(found) == () and volume_of(found, "f2") == ("f2",)
    assert volume_of(replace(found, features=("ct_morph_volume",))) == ("ct_morph_volume",)


def test_a_feature_is_named_by_the_end_of_its_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_cohort(write(tmp_path / "t.csv", planted(30, 5)), Columns("outcome"))
    found = replace(found, features=("ct_gtv_stat_max", "pet_gtv_stat_max", "ct_morph_volume", "pet_morph_volume"))
    assert feature_named(found, "pet_gtv_stat_max") == "pet_gtv_stat_max"
    assert feature_named(replace(found, features=found.features[1:]), "stat_max") == "pet_gtv_stat_max"
    with pytest.raises(UsageError, match="got 2, such as ct_gtv_stat_max and pet_gtv_stat_max"):
        feature_named(found, "stat_max")
    with pytest.raises(UsageError, match="did you mean `ct_morph_volume`"):
        feature_named(found, "ct_morph_volum")
    assert volume_of(found) == ("ct_morph_volume",) and "of 2; --volume" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("outcome_2", lambda event: np.zeros(40) + np.arange(40) % 3),  # its name is enough
        ("Outcome (late)", lambda event: np.arange(40)),
        ("relapse", lambda event: event),  # a copy
        ("relapse", lambda event: 2 - event),  # a copy, coded otherwise
        ("months", lambda event: np.where(event, 3, 30) + np.arange(40) / 10),  # ranks every case
    ],
)
def test_outcomes_among_the_features_are_refused(tmp_path: Path, name: str, make: object) -> None:
    cohort = planted(40, 6)
    event = cohort.outcome.event.astype(int)
    path = write(tmp_path / "t.csv", cohort, {name: make(event).tolist()})  # type: ignore[operator]
    with pytest.raises(UsageError, match="--ignore") as caught:
        read_cohort(path, Columns("outcome"))
    assert caught.value.code == "E_TABLE" and name in str(caught.value)
    assert name not in read_cohort(path, Columns("outcome", ignore=(name,))).features


def test_times_among_the_features_are_refused(tmp_path: Path) -> None:
    cohort, days = planted(40, 6), np.random.default_rng(0).permutation(40) + 1
    more = {"days": days.tolist(), "dead": [1, 0] * 20, "years": (days / 365.25).tolist()}
    path = write(tmp_path / "t.csv", cohort, more)
    columns = Columns(time="days", event="dead", ignore=("outcome",))
    with pytest.raises(UsageError, match=r"E_TABLE.*years, which ranks"):
        read_cohort(path, columns)
    found = read_cohort(path, replace(columns, ignore=("outcome", "years")))
    assert found.outcome.time is not None and found.outcome.time.tolist() == days.tolist()
    assert found.features == cohort.features


@pytest.mark.parametrize(
    ("code", "said", "columns", "more"),
    [
        (
            "E_TABLE",
            r"column outcom in t\.csv, got none.*`outcome`",
            Columns("outcom"),
            {},
        ),
        ("E_TABLE", "scanner", Columns("outcome", batch="scanner"), {}),
        (
            "E_LABEL",
            "0 or 1 in the column grade, got 2, 3",
            Columns("grade", ignore=("outcome",)),
            {"grade": [2, 3] * 15},
        ),
        ("E_OPTION", "--outcome, or --time", Columns(), {}),
        ("E_OPTION", "--outcome, or --time", Columns("outcome", time="f1", event="f2"), {}),
        ("E_TABLE", "number as f70 of case-3", Columns("outcome"), {"f70": [*range(3), "1,5", *range(26)]}),
        ("E_ROWS", "two of twice", Columns("outcome"), {"case_id": ["twice"] * 30}),
        ("E_BATCH", "batch of every case", Columns("outcome", batch="site"), {"site": ["a"] * 29 + [""]}),
        ("E_TABLE", "times of 0", Columns(time="days", event="outcome"), {"days": [-1, *range(29)]}),
    ],
)
def test_wrong_tables_are_refused(
    tmp_path: Path, code: str, said: str, columns: Columns, more: dict[str, Sequence[object]]
) -> None:
    path = write(tmp_path / "t.csv", planted(30, 7), more)
    with pytest.raises(UsageError, match=said) as caught:
        read_cohort(path, columns)
    assert caught.value.code == code


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case_id,outcome,f,f\na,0,1,2\nb,1,2,3\n")
    with pytest.raises(UsageError, match=r"E_TABLE.*one column f"):
        read_cohort(tmp_path / "t.csv", Columns("outcome"))


def test_a_constant_table_is_refused(tmp_path: Path) -> None:
    cohort = planted(30, 7)
    path = write(tmp_path / "t.csv", replace(cohort, values=np.ones_like(cohort.values)))
    with pytest.raises(UsageError, match=r"E_TABLE.*60 constant ones"):
        read_cohort(path, Columns("outcome"))
