"""A small cohort under attack, against an undisturbed run: docs/benchmarks/chaos.md.

    python -m benchmarks.chaos FOLDER [--kills 500] [--seconds 1200] [--no-points] [--write]

Real stages of simulated studies are killed at every write point (fsync, rename) and at random moments, the parent and
its workers, and their outputs are damaged. `FOLDER` keeps what was done: stopped, or out of time, the same command goes
on. Two can work at once, in two folders (`--kills 0`, `--no-points`): joined, their `attacks.jsonl` are one. The run is
forked from this process, which has loaded what it needs; every tenth random kill hits `tandem run
--jobs 2`, started from nothing.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.document import write_section
from pipeline.child import Server
from pipeline.run import batch
from pipeline.run.plan import Plan
from pipeline.simulation.dicom import SeriesHeader, write_series
from pipeline.store import records, upkeep
from pipeline.volumes import affine_of
from tests.dicom.objects.structures import circle, polygon, write_rtstruct
from tests.phantoms.phantom import position_phantom
from tests.run.wounds import HOWS, Death, Moment, in_child, points
from tests.warm import kept_sandboxes

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "chaos.md"
STAGES = ("ingest", "preprocess", "radiomics", "report")
PATIENTS, CLUSTER = 2, 10
SHAPE = (24, 22, 10)
SPEC = """\
name: chaos
description: Small phantoms with a drawn lesion.
roles: {ct: {modality: CT, unit: HU}}
masks: {lesion: {of: ct, labels: {lesion: lesion}}}
ct_windows: {soft: [40, 400]}
radiomics: {images: {ct: ibsi_ct}}
"""


class Attack:
    """The cohort, its undisturbed run, and what was done to others.

    Args:
        folder: keeps all of it.
        until: when to stop, by `time.monotonic`.
        servers: what reads foreign files, for all runs.
    """

    def __init__(self, folder: Path, until: float, servers: dict[tuple[str, Path], Server]) -> None:
        self.folder, self.until, self.servers = folder.absolute(), until, servers
        self.kept = self.folder / "attacks.jsonl"
        os.environ["TANDEM_HOME"] = str(self.folder / "home")
        (self.folder / "work").mkdir(parents=True, exist_ok=True)
        self.done = [json.loads(line) for line in self.kept.read_text().splitlines()] if self.kept.is_file() else []

    def prepare(self) -> None:
        """Simulate, and run undisturbed: whole, and up to before each stage."""
        if not (self.folder / "tree").is_dir():
            simulate(self.folder / "tree")
            (self.folder / "spec.yaml").write_text(SPEC)
        for number in range(len(STAGES) + 1):
            out = self.folder / f"before{number}"
            if not out.is_dir():
                if number:
                    shutil.copytree(self.folder / f"before{number - 1}", out)
                    require(in_child(partial(self.run, out, STAGES[number - 1 : number])) == 0, f"stage {number}")
                else:
                    out.mkdir()
        shutil.rmtree(self.folder / "warm", ignore_errors=True)
        self.run(self.folder / "warm", STAGES)  # here, so that forks find everything loaded
        self.truth = outputs(self.folder / f"before{len(STAGES)}")

    def run(self, out: Path, stages: tuple[str, ...] = STAGES) -> None:
        """`tandem run`, in this process: a fork of the one that has loaded what reads foreign files."""
        for server in self.servers.values():
            if server._started is not None:  # it is no child of a fork, which takes it for ended
                server._started[0].poll = lambda: None  # type: ignore[method-assign]
        batch.run(Plan(self.folder / "tree", out, self.folder / "spec.yaml", stages=stages, min_free_gb=0))

    def left(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.until

    def keep(self, **said: Any) -> None:
        """Write down what was done."""
        self.done.append(said)
        with self.kept.open("a") as stream:
            stream.write(json.dumps(said) + "\n")

    def copy(self, number: int) -> Path:
        """A run folder as it was before a stage."""
        out = self.folder / "work" / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder / f"before{number}", out)
        return out

    def judge(self, out: Path, stages: tuple[str, ...], **said: Any) -> None:
        """Count what is wrong but counts as done; then go on, and compare with the undisturbed run."""
        wrong, before = self.wrong(out), done_in(out)
        require(in_child(partial(self.run, out, stages)) == 0, f"the run after {said}")
        again = [path for path, when in before.items() if done_in(out).get(path) != when and "ingest" not in path]
        made = outputs(out)
        equal = all(self.truth[path] == digest for path, digest in made.items())
        whole = set(made) == {path for path in self.truth if path.split("/")[2] in (*stages, *self.earlier(stages))}
        self.keep(**said, wrong=wrong, equal=equal and whole, again=len(again))

    def earlier(self, stages: tuple[str, ...]) -> tuple[str, ...]:
        """The stages before."""
        return STAGES[: STAGES.index(stages[0])]

    def wrong(self, out: Path) -> int:
        """How many outputs count as done and are not whole, or not those of the undisturbed run."""
        found = 0
        for path in out.glob("cases/*/[!.]*/record.json"):
            record = records.read(path.parent)
            done = record is not None and record.status == "done"
            if record is None or (done and not records.intact(record, out)):
                found += 1
            else:
                found += sum(self.truth.get(i.path, i.sha256) != i.sha256 for i in record.artifacts)
        return found

    def write_points(self) -> None:
        """A death at each write point of each stage, in turn."""
        known = {(item.get("stage"), item.get("at"), item.get("how")) for item in self.done}
        for number, stage in enumerate(STAGES):
            if not self.left():
                return
            names = points(partial(self.run, self.copy(number), (stage,)), self.folder / "work" / "points.txt")
            for at, how in ((at, how) for at in range(len(names)) for how in HOWS):
                if (stage, at, how) in known or not self.left():
                    continue
                out = self.copy(number)
                code = in_child(partial(self.run, out, (stage,)), Death(at, how))
                require(code in (0, -signal.SIGKILL), f"{stage} {at} {how}: {code}")
                told = {"stage": stage, "at": at, "how": how, "of": len(names), "killed": code != 0}
                self.judge(out, (stage,), kind="point", **told)

    def random_kills(self, kills: int) -> None:
        """Kills at random moments of whole runs."""
        out = self.folder / "work" / "out"
        number = sum(item["kind"] in ("parent", "cluster") for item in self.done)
        seconds = self._seconds() if number < kills and self.left() else 0.0
        while number < kills and self.left():
            chance = random.Random(number)
            shutil.rmtree(out, ignore_errors=True)
            if number % CLUSTER == CLUSTER - 1:
                killed = self._kill_of_cluster(out, chance)
                self.judge(out, STAGES, kind="cluster", killed=bool(killed), who=killed)
            else:
                code = in_child(partial(self.run, out), Moment(chance.uniform(0.02, 0.95) * seconds))
                self.judge(out, STAGES, kind="parent", killed=code != 0)
            number += 1

    def _seconds(self) -> float:
        started = time.monotonic()
        in_child(partial(self.run, self.folder / "work" / "timed"))
        shutil.rmtree(self.folder / "work" / "timed")
        return time.monotonic() - started

    def _kill_of_cluster(self, out: Path, chance: random.Random) -> str:
        """Kill the parent, or one of its workers, of two: once the first case is done, at a random moment."""
        options = ["--stages", ",".join(STAGES), "--jobs", "2", "--spec", str(self.folder / "spec.yaml")]
        command = [sys.executable, "-m", "pipeline.cli", "run", str(self.folder / "tree"), "--out", str(out), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(out.glob("cases/*/ingest/record.json")):
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 4))
        who = ""
        try:
            family = psutil.Process(process.pid).children()
            workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
            who = chance.choice(["parent", "worker"]) if workers else ""
            if who:
                (process if who == "parent" else chance.choice(workers)).kill()
            if who == "parent":
                psutil.wait_procs(family, timeout=30)
        except psutil.NoSuchProcess:
            who = ""
        process.wait()
        return who

    def damage(self) -> None:
        """Flip a bit of each output, and cut each: `verify` finds it alone, and the next run makes it again."""
        if any(item["kind"] == "damage" for item in self.done) or not self.left():
            return
        for how in ("flip", "cut"):
            out, found = self.copy(len(STAGES)), 0
            paths = sorted(self.outputs_of(out))
            for name in paths:
                path = out / name
                data = path.read_bytes()
                path.write_bytes(damaged(data, how))
                seen = [item.path for item, state in upkeep.check(out, upkeep.outputs(out)) if state == "changed"]
                found += seen == [name]
                path.write_bytes(data)
            chosen = [next(name for name in paths if f"/{stage}/" in name) for stage in STAGES]
            for name in chosen:
                (out / name).write_bytes(damaged((out / name).read_bytes(), how))
            self.judge_damage(out, how, found, len(paths))

    def outputs_of(self, out: Path) -> list[str]:
        """The paths of all outputs."""
        return [item.path for item in upkeep.outputs(out)]

    def judge_damage(self, out: Path, how: str, found: int, of: int) -> None:
        """Whether the next run repairs what was damaged."""
        require(in_child(partial(self.run, out)) == 0, f"the run after {how}")
        self.keep(kind="damage", how=how, found=found, of=of, wrong=of - found, equal=outputs(out) == self.truth)


def simulate(tree: Path) -> None:
    """Studies of a phantom with a structure set."""
    for number in range(PATIENTS):
        image = position_phantom(SHAPE, origin_mm=(-31.7 - 9 * number, 12.3, 44.1))
        folder = tree / f"PA{number}"
        paths = write_series(image, folder / "CT", SeriesHeader(patient_id=f"SIM-{number}"))
        drawn = [polygon(circle((11, 10), (6, 5), 40), k, affine_of(image)) for k in range(3, 8)]
        write_rtstruct(folder / "RS", paths, {"lesion": drawn})


def damaged(data: bytes, how: str) -> bytes:
    """A bit flipped in the middle, or the second half cut off."""
    middle = len(data) // 2
    return data[:middle] if how == "cut" else data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def outputs(out: Path) -> dict[str, str]:
    """The sha256 of every output on the disk that does not tell the time, by its path."""
    found = (item for case in records.of_run(out).values() for r in case if r.stage != "report" for item in r.artifacts)
    return {item.path: records.sha256_file(out / item.path) for item in found}


def done_in(out: Path) -> dict[str, int]:
    """The records of what is done, and when they were written."""
    paths = out.glob("cases/*/[!.]*/record.json")
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in paths}


def require(condition: bool, what: str) -> None:
    """End where the attack itself went wrong."""
    if not condition:
        raise SystemExit(f"Not as expected: {what}.")


def told(done: list[dict[str, Any]]) -> list[str]:
    """A row for each kind of attack."""
    names = {
        "point": "death at a write point",
        "parent": "`kill -9` of a run of one process",
        "cluster": "`kill -9` of the parent or a worker of two",
        "damage": "outputs flipped or cut",
    }
    lines = ["| attack | runs | hit | wrong but done | equal at the end | most stages of cases done again |"]
    lines += ["|---|" + "---|" * 5]
    for kind, name in names.items():
        rows = [item for item in done if item["kind"] == kind]
        if rows:
            hit = sum(item.get("killed", True) for item in rows)
            wrong, equal = sum(item["wrong"] for item in rows), sum(item["equal"] for item in rows)
            lines.append(
                f"| {name} | {len(rows)} | {hit} | {wrong} | {equal} | {max(i.get('again', 0) for i in rows)} |"
            )
    at = Counter(item["stage"] for item in done if item["kind"] == "point")
    of = {item["stage"]: item["of"] * len(HOWS) for item in done if item["kind"] == "point"}
    lines += [
        "",
        "Write points: "
        + ", ".join(f"{stage} {at[stage]} of {of.get(stage, 'those not counted yet')}" for stage in STAGES)
        + ".",
    ]
    found = [item for item in done if item["kind"] == "damage"]
    said = ", ".join(f"{item['how']} {item['found']} of {item['of']}" for item in found)
    return [*lines, *(["", f"`verify` found of what was damaged: {said}."] if said else [])]


def main(
    folder: Path,
    kills: Annotated[int, typer.Option(min=0)] = 500,
    seconds: Annotated[
        float, typer.Option(help="Stop after so long: half for write points, half for random kills.")
    ] = 1e9,
    points: Annotated[bool, typer.Option("--points/--no-points", help="Kill at each write point.")] = True,
    write: Annotated[bool, typer.Option("--write", help="Write the page.")] = False,
) -> None:
    """Attack what was not yet attacked, and print the table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with kept_sandboxes() as servers:
        attack = Attack(folder, time.monotonic() + seconds, servers)
        attack.prepare()
        if points:
            attack.damage()
            end, attack.until = attack.until, time.monotonic() + seconds / 2
            attack.write_points()
            attack.until = end
        attack.random_kills(kills)
    lines = told(attack.done)
    print("\n".join(lines))
    if write:
        about = (
            f"Made by `python -m benchmarks.chaos FOLDER --write`: {PATIENTS} small studies, {', '.join(STAGES)}. "
            "After each attack the same command runs again, undisturbed. *Wrong but done*: outputs that a record calls "
            "done and that are not whole, or not those of the undisturbed run, before that. *Equal at the end*: runs "
            "whose outputs are then those of the undisturbed run (reports tell the time, and are not compared). Asked "
            "for are a death at every write point, and 500 random kills that hit."
        )
        write_section(PAGE, "Killed runs", "chaos", "\n".join([textwrap.fill(about, 120), "", *lines]))


if __name__ == "__main__":
    typer.run(main)
