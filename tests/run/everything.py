"""A stage that writes every kind of output, and what has to be true of its run folder after whatever happened to it."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from pipeline.run import batch
from pipeline.run.loading import Loaded
from pipeline.run.plan import Plan
from pipeline.run.stage import Stage
from pipeline.store import records
from pipeline.store.artifacts import FORMATS, save
from pipeline.store.files import TEMPORARY_PREFIX
from pipeline.volumes import volume
from tests.run.stand_in import Cases, put_in_place

#: What tells the time, and what a person may read while a run goes on.
OF_THE_TIME = ("run.json", "log.jsonl", ".lock")
AFFINE = np.array([[0.0, -2.0, 0.0, 5.0], [1.5, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 11.0], [0.0, 0.0, 0.0, 1.0]])


class Page:
    """A document."""

    suffix, data = ".html", b"<p>" + bytes(range(32, 127)) * 40


def values_of(seed: int) -> dict[str, Any]:
    """A value of each kind, under the kind's name."""
    random = np.random.default_rng(seed)
    noise = random.random((1, 14, 12, 10), dtype=np.float32)
    found = {
        "image": volume(1000 * noise, AFFINE),
        "label": volume((noise * 5).astype(np.uint8), AFFINE),
        "probability": volume(noise, AFFINE),
        "transform": sitk.AffineTransform(random.random((3, 3)).ravel().tolist(), random.random(3).tolist()),
        "table": pd.DataFrame(random.random((40, 5)), columns=list("abcde")),
        "measure": {"numbers": random.random(40).tolist()},
        "document": Page(),
    }
    assert found.keys() == FORMATS.keys()
    return found


def chain(case: dict[str, Any]) -> dict[str, Any]:
    """Gives one of each."""
    return {**case, **values_of(len(case["case_id"])), "measures": {"size_ml": 1.0}}


def run(out: Path, cases: tuple[str, ...]) -> None:
    """`tandem run` of the stage, in this process, which is a child's."""

    def load(name: str, plan: Plan) -> Loaded:
        stage = Stage(name, chain, {}, {kind: kind for kind in FORMATS}, plan.output_dir)
        return Loaded(stage, Cases(cases), ())

    put_in_place(load)
    batch.run(Plan(out.parent / "in", out, stages=("ingest",), min_free_gb=0))


def save_one(folder: Path, kind: str) -> None:
    """Write one output alone."""
    save(kind, kind, values_of(1)[kind], folder)


def tree(out: Path) -> dict[str, str]:
    """The bytes of every file of a run folder, as hashes, but for what tells the time."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and path.name not in OF_THE_TIME):
        data = path.read_bytes()
        if path.name == records.RECORD:
            record = json.loads(data)
            del record["measures"]["seconds"]
            data = json.dumps(record).encode()
        if path.name == records.CASES_TABLE:
            data = pd.read_csv(path).drop(columns="ingest_seconds").to_csv().encode()
        found[path.relative_to(out).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def require_nothing_wrong(out: Path, truth: dict[str, str]) -> None:
    """Whatever counts as done is whole, and what the undisturbed run gives; whatever has its name is whole."""
    for path in out.glob("cases/*/[!.]*/record.json"):  # an attempt that was not finished has a dot
        record = records.read(path.parent)
        assert record is not None, path
        assert record.status != "done" or records.intact(record, out), path
        assert all(truth[item.path] == item.sha256 for item in record.artifacts)
    for path in out.rglob("*.json"):
        if TEMPORARY_PREFIX not in str(path):
            json.loads(path.read_bytes())


work = partial(run, cases=("case-a", "case-bb"))
