"""Attempts at one work meet in every order: what a record names was made by who wrote the record, and made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cases import Artifact, Record
from pipeline.store import records, upkeep
from pipeline.store.attempts import Attempt
from pipeline.store.files import run_lock, run_of, sha256_file

Step = Callable[[], object]


class Work:
    """An attempt in steps, whose output holds its own name."""

    def __init__(self, out: Path, name: str, key: str = "key", run: str | None = None) -> None:
        self.out, self.name, self.key = out, name, key
        self.attempt = Attempt(out, out / "cases" / "case-1" / "add", run)
        self.committed = False

    def steps(self) -> list[Step]:
        return [self.attempt.open, self.write, self.record, self.commit]

    def write(self) -> None:
        (self.attempt.path / "sum.txt").write_text(self.name)

    def record(self) -> None:
        made = Artifact("sum", "document", "cases/case-1/add/sum.txt", sha256_file(self.attempt.path / "sum.txt"))
        said = Record("case-1", "add", self.key, "done", artifacts=(made,), flags=(self.name,))
        records.write(said, self.attempt.path)

    def commit(self) -> None:
        self.committed = self.attempt.commit(self.key)
        self.attempt.close()

    def do(self, *steps: Step) -> Work:
        for step in steps or self.steps():
            step()
        return self


def kept(out: Path) -> str:
    """Whose record is there, with its own output and nothing else."""
    folder = out / "cases" / "case-1" / "add"
    found = records.read(folder)
    assert found is not None and records.intact(found, out) and found.flags == ((folder / "sum.txt").read_text(),)
    assert upkeep.strays(out) == []
    return found.flags[0]


@pytest.mark.parametrize("asleep", [0, 1, 2, 3])
@pytest.mark.parametrize("before", ["nothing", "a result of another configuration"])
def test_who_falls_asleep_and_wakes_commits_nothing(tmp_path: Path, asleep: int, before: str) -> None:
    """`asleep`: before which of its steps: begin, write, record, commit."""
    with run_lock(tmp_path):
        if before != "nothing":
            Work(tmp_path, "old", "another key").do()
        late = Work(tmp_path, "late")
        late.do(*late.steps()[:asleep])
        second = Work(tmp_path, "second").do()
        assert second.committed and kept(tmp_path) == "second"
        for step in late.steps()[asleep:]:
            try:
                step()
            except OSError:  # its folder is gone
                break
        late.attempt.close()
        assert not late.committed and kept(tmp_path) == "second"


@pytest.mark.parametrize("asleep", [1, 2, 3])
def test_who_wakes_before_the_second_has_ended_is_the_one(tmp_path: Path, asleep: int) -> None:
    with run_lock(tmp_path):
        first, second = Work(tmp_path, "first"), Work(tmp_path, "second")
        first.do(*first.steps()[:asleep])
        second.do(*second.steps()[:3])
        first.do(*first.steps()[asleep:])
        second.do(second.commit)
        assert (first.committed, second.committed) == (True, False) and kept(tmp_path) == "first"


@pytest.mark.parametrize("asleep", [1, 2, 3])
def test_what_was_begun_in_a_run_that_has_ended_counts_for_nothing(tmp_path: Path, asleep: int) -> None:
    with run_lock(tmp_path):
        late = Work(tmp_path, "late", "old key")
        late.do(*late.steps()[:3])
        second = Work(tmp_path, "between", "old key")
        second.do(*second.steps()[:asleep])
    late.do(late.commit)
    assert not late.committed and run_of(tmp_path) == ""
    with run_lock(tmp_path):
        assert Work(tmp_path, "new", "new key").do().committed
        for step in second.steps()[asleep:]:
            try:
                step()
            except OSError:
                break
        assert not second.committed and kept(tmp_path) == "new"


def test_a_result_of_another_configuration_is_replaced(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        new, old = Work(tmp_path, "new", "new key"), Work(tmp_path, "old", "old key")
        new.do(*new.steps()[:3])
        assert old.do().committed
        Path.mkdir(new.attempt.path, exist_ok=True)  # thrown away by the other's commit, and made anew by a late write
        assert not new.do(new.commit).committed and kept(tmp_path) == "old"
        assert Work(tmp_path, "newest", "new key").do().committed and kept(tmp_path) == "newest"


def test_a_killed_attempt_counts_for_nothing_and_is_swept_by_the_next_run(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        killed = Work(tmp_path, "killed")
        killed.do(*killed.steps()[:3])
        assert records.of_run(tmp_path) == {"case-1": []} and upkeep.outputs(tmp_path) == []
        assert [item.reason for item in upkeep.strays(tmp_path)] == [upkeep.TEMPORARY]
    with run_lock(tmp_path):
        Attempt(tmp_path, tmp_path / "cases" / "case-1" / "add")
        assert [item.reason for item in upkeep.strays(tmp_path)] == [upkeep.EMPTY]


def test_the_lock_names_its_run(tmp_path: Path) -> None:
    assert run_of(tmp_path) == ""
    with run_lock(tmp_path):
        first = run_of(tmp_path)
    with run_lock(tmp_path):
        assert first and run_of(tmp_path) and run_of(tmp_path) != first
    assert run_of(tmp_path) == ""
