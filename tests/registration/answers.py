"""In the place of elastix' process: answers that were made up, so that what is done with them is tested alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.registration import Method, RegistrationSettings, Side
from pipeline.registration import register as elastix
from tests.registration.phantom import HeadPair

RIGID = RegistrationSettings(Method("rigid", ("",)))


def sides(pair: HeadPair) -> tuple[Side, Side]:
    return Side(pair.ct, "CT"), Side(pair.mr, "MR")


class Answers:
    """In the place of elastix' process: writes answers that were made up."""

    def __init__(self, *results: dict) -> None:
        self.results = list(results)
        self.requests: list[dict] = []

    def start(self) -> None:
        pass

    def run(self, folder: Path, threads: int, timeout_s: float) -> None:
        self.requests.append(json.loads((folder / "request.json").read_text()))
        if self.results:
            result = self.results.pop(0)
            for name, numbers in result.pop("files", {}).items():
                np.savez(folder / name, **numbers)
            (folder / "result.json").write_text(json.dumps(result))


def answered(monkeypatch: pytest.MonkeyPatch, *results: dict) -> Answers:
    made = Answers(*results)
    monkeypatch.setattr(elastix, "registrar", lambda: made)
    return made


def searched(*matrices: np.ndarray) -> dict:
    """An answer to a search; the matrices are RAS."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    results = [{"start": f"start {n}", "matrix": (flip @ m @ flip).tolist()} for n, m in enumerate(matrices)]
    return {"starts": 2, "results": results, "mirrored": [], "failures": []}
