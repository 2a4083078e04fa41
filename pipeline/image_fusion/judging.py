"""Methods of fusion judged on pairs: their pictures, their measures, and what they take."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import CaseError, UsageError
from pipeline.image_fusion.applying import apply_network
from pipeline.image_fusion.baselines import fuse, require_methods
from pipeline.image_fusion.candidates import CANDIDATES
from pipeline.image_fusion.data import ReadPaird, require_one_grid
from pipeline.image_fusion.metrics import Measures, measure
from pipeline.image_fusion.pair import WHOLE
from pipeline.image_fusion.pictures import Floats, is_volume, read_image
from pipeline.image_fusion.weights import Trained
from pipeline.learning.table import Row
from pipeline.spec.stages import NETWORK, WINDOW

Call = Callable[[], list[Floats]]


class Cost(NamedTuple):
    """What a fusion takes: wall-clock seconds, and MB at the peak, None where they are not counted."""

    seconds: float
    memory_mb: float | None


@dataclass(frozen=True)
class Judged:
    """One method on one pair.

    Attributes:
        case_id: the pair.
        patient_id: whose it is.
        method: a name of `BASELINES`, a column of the table, or `network`.
        measures: as `measure` has them.
        voxels: of the pair.
        cost: of the fusion; None where it was made elsewhere.
    """

    case_id: str
    patient_id: str
    method: str
    measures: Measures
    voxels: int
    cost: Cost | None


@dataclass(frozen=True)
class Shown:
    """A pair to look at: one slice of each image, (rows, columns), 0 to 1.

    Attributes:
        case_id: the pair.
        images: CT, MR and each method's.
        inside: what the network says: weights of its candidates, residual, attention.
    """

    case_id: str
    images: Mapping[str, Floats]
    inside: Mapping[str, Floats]


@dataclass(frozen=True)
class Judge:
    """Fuses pairs by methods, and measures the results.

    Attributes:
        modalities: columns of CT and MR.
        methods: names of `BASELINES`.
        fused: columns with images that were fused elsewhere: pictures, or volumes from 0 to 1.
        windows: of CT, level and width; the first is what is fused and judged by. Empty: `WHOLE` of pictures,
            `WINDOW` of volumes, or the network's own.
        trained: a network, or None.
    """

    modalities: Sequence[str]
    methods: Sequence[str]
    fused: Sequence[str] = ()
    windows: Sequence[Sequence[float]] = ()
    trained: Trained | None = None

    def __post_init__(self) -> None:
        """Refuse methods that there are not, and windows beside a network that has its own.

        Raises:
            UsageError: E_OPTION.
        """
        require_methods(self.methods)
        if self.trained and self.windows:
            raise UsageError("E_OPTION", "Expected no windows beside a network, which has its own, got some.")

    def judge(self, row: Row) -> tuple[list[Judged], Shown]:
        """Fuse one pair by all methods.

        Raises:
            CaseError: as `ReadPaird` and `measure`; E_GRID for an image fused elsewhere on another grid.
        """
        windows = self.trained.preparation.windows if self.trained else self.windows or [_usual(row, self.modalities)]
        data: dict[Hashable, Any] = dict(row.item().items())
        image = ReadPaird(self.modalities, windows)(data)["image"]
        ct, mr = image[0].numpy(), image[-1].numpy()
        where = _slice_of(mr)
        found: list[Judged] = []
        images, inside = {"CT": where(ct), "MR": where(mr)}, dict[str, Floats]()
        for name, call in self._calls(row, ct, mr, image).items():
            (made, *parts), cost = _taken(call, self.trained if name == NETWORK else None)
            own = None if name in self.fused else cost
            found.append(Judged(row.case_id, row.patient_id, name, _measured(made, ct, mr), ct.size, own))
            if name not in ("ct", "mr"):  # copies
                images[name] = where(made)
            inside |= _named([where(part) for part in parts])
        return found, Shown(row.case_id, images, inside)

    def _calls(self, row: Row, ct: Floats, mr: Floats, image: Tensor) -> dict[str, Call]:
        calls: dict[str, Call] = {name: partial(_fused, ct, mr, name) for name in self.methods}
        for name in self.fused:
            if name in row.images:
                calls[name] = partial(_read, row.images[name], (ct, row.images[self.modalities[0]]))
        if (trained := self.trained) is not None:
            calls[NETWORK] = lambda: by_network(trained, image)
        return calls


def by_network(trained: Trained, image: Tensor) -> list[Floats]:
    """All that a network says of a pair: the fused picture, its weights, the residual, attention; (I, J[, K]) each.

    Args:
        trained: it; its device counts.
        image: (windows + 1, …) as `ReadPaird` makes it. A volume goes through a network for slices by its axial slices,
            and through one for volumes by tiles of its patch.

    Raises:
        CaseError: E_GRID for a picture before a network of volumes.
    """
    network = trained.network
    if network.spatial_dims == 3 and image.ndim != 4:
        raise CaseError("E_GRID", "Expected volumes for a network that was trained on volumes, got pictures.")
    said = apply_network(network, image[:-1].numpy(), image[-1].numpy(), trained.preparation.patch)
    return [said.fused, *said.weights, said.residual, *said.attention]


def _taken(call: Call, trained: Trained | None) -> tuple[list[Floats], Cost]:
    """A result and what it takes; the memory is that of numpy's arrays, or the GPU's; on a processor no network's."""
    gpu = trained is not None and next(trained.network.parameters()).is_cuda
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    tracemalloc.start()
    try:
        started = time.perf_counter()
        made = call()
        seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    finally:  # what goes on after a failed pair is not traced
        tracemalloc.stop()
    if trained is not None:
        return made, Cost(seconds, torch.cuda.max_memory_allocated() / 1e6 if gpu else None)
    return made, Cost(seconds, peak / 1e6)


def _fused(ct: Floats, mr: Floats, method: str) -> list[Floats]:
    return [fuse(ct, mr, method)]


def _read(path: Path, beside: tuple[Floats, Path]) -> list[Floats]:
    """An image fused elsewhere, on the grid of the CT."""
    made = read_image(path, ct=True)
    require_one_grid(beside, (made, path))
    return [made]


def _measured(made: Floats, ct: Floats, mr: Floats) -> Measures:
    """Pictures are judged as they are saved, in 256 greys."""
    if ct.ndim == 3:
        return measure(made, ct, mr, top=1.0)
    return measure(*(np.rint(255 * image.clip(0, 1)) for image in (made, ct, mr)))


def _usual(row: Row, modalities: Sequence[str]) -> tuple[float, float]:
    return WINDOW if is_volume(row.images.get(modalities[0], "")) else WHOLE


def _slice_of(mr: Floats) -> Callable[[Floats], Floats]:
    """What takes the picture itself; of a volume the axial slice in which MR shows most, head up where axes are RAS."""
    if mr.ndim == 2:
        return lambda image: image
    place = int(mr.sum((0, 1)).argmax())
    return lambda image: image[..., place].T[::-1]


def _named(parts: Sequence[Floats]) -> dict[str, Floats]:
    count = len(CANDIDATES)
    names = [*(f"weight of {name}" for name in CANDIDATES), "residual"]
    names += [f"attention, scale {number}" for number in range(1, len(parts) - count)]
    return dict(zip(names, parts, strict=True)) if parts else {}
