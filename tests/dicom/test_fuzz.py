"""A short run of benchmarks/fuzz.py; the long one is in docs/benchmarks/ingest-fuzz.md."""

from __future__ import annotations

import random

from benchmarks import fuzz
from tests.phantoms.mutations import MUTATIONS


def test_no_broken_file_ends_or_swells_this_process() -> None:
    tally = fuzz.fuzz(300, seed=7, folders=[])
    assert tally.unexplained == []
    assert sum(tally.verdicts.values()) == 300
    assert tally.growth_mb < 200
    codes = {code for _, code in tally.verdicts}
    assert {"read", "E_GAP", "E_BAD_DS"} <= codes, "the inputs are not what they should be"


def test_every_mutation_follows_from_the_seed_and_breaks_something() -> None:
    data = bytes(range(256)) * 8 + b"\x28\x00\x10\x00US\x02\x00\x10\x00" + b"\x08\x00\x40\x11SQ\x00\x00\x08\x00\x00\x00"
    for mutation in MUTATIONS:
        first = [mutation(data, random.Random(seed)) for seed in range(20)]
        assert first == [mutation(data, random.Random(seed)) for seed in range(20)]
        assert sum(broken != data for broken in first) >= 15, mutation.__name__
