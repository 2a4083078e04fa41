"""Cohorts of streams that share no grid: a volume, an image, a sound of each case, with the class's true posterior.

`tests.phantoms.streams.cues` draws what the streams show; here it becomes arrays, `tests.phantoms.streams.files`
writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from tests.phantoms.streams.cough import COUGH_S, RATE_HZ, airway, cough_sound
from tests.phantoms.streams.cues import Cues, Mechanism, Pairing, draw_cues
from tests.phantoms.streams.limb import mr_volume, radiograph, random_limb
from tests.phantoms.streams.shapes import shapes

Kind = Literal["volume", "image", "sound"]
Scene = Literal["shapes", "limb"]
Array = npt.NDArray[np.float32]
SCENES: tuple[Scene, ...] = ("shapes", "limb")
_AXES = {"volume": 3, "image": 2, "sound": 1}


@dataclass(frozen=True)
class Shown:
    """A stream to simulate.

    Attributes:
        kind: what it is.
        size: (I, J, K) of a volume, (I, J) of an image, (samples,) of a sound at 16 kHz.
    """

    kind: Kind
    size: tuple[int, ...]

    def __post_init__(self) -> None:
        least = round(COUGH_S * RATE_HZ) if self.kind == "sound" else 8
        if self.kind not in _AXES or len(self.size) != _AXES[self.kind] or min(self.size) < least:
            expected = f"a volume or an image of 8 or more along each of its axes, or a sound of {COUGH_S} s or more"
            raise UsageError("E_CONFIG", f"Expected {expected}, got {self.kind} {self.size}.", "Choose another size.")


#: A volume and an image that are learned from in minutes.
SMALL: dict[str, Shown] = {"volume": Shown("volume", (16, 16, 16)), "image": Shown("image", (24, 24))}


@dataclass(frozen=True, eq=False)
class StreamCohort:
    """Simulated cases, whose arrays are made when they are asked for; the same fields give the same arrays.

    Attributes:
        streams: name -> what it is, in the order of the cues.
        cues: of the cases.
        seed: of the noise and the anatomy.
        scene: `shapes`, or `limb`: volumes and images show one limb. Sounds are coughs in both.
    """

    streams: Mapping[str, Shown]
    cues: Cues
    seed: int
    scene: Scene = "shapes"

    def array(self, name: str, case: int) -> Array:
        """One stream of one case: (I, J, K) or (I, J) in standard deviations of the noise, (samples,) from -1 to 1."""
        place = list(self.streams).index(name)
        person = int(self.cues.persons[case, place])
        shown, cues = self.streams[name], self.cues.shown[case, place]
        rng = np.random.default_rng([self.seed, person, place + 1])
        if shown.kind == "sound":
            return cough_sound(airway(cues, rng), shown.size[0], rng)
        if self.scene == "shapes":
            return shapes(shown.size, cues, rng)
        limb = random_limb(np.random.default_rng([self.seed, person, 0]))  # of the person, whichever stream shows it
        draw = mr_volume if shown.kind == "volume" else radiograph
        return draw(limb, shown.size, cues) + rng.standard_normal(shown.size).astype(np.float32)

    def arrays(self, name: str) -> Array:
        """(N, …): one stream of all cases."""
        return np.stack([self.array(name, case) for case in range(len(self.cues.labels))])

    def case_names(self) -> Iterator[str]:
        """Names of the cases: `case-0000` and so on."""
        return (f"case-{number:04d}" for number in range(len(self.cues.labels)))


def simulate_streams(
    mechanism: Mechanism,
    count: int,
    seed: int,
    streams: Mapping[str, Shown] | None = None,
    classes: int = 2,
    pairing: Pairing = "patient",
    scene: Scene = "shapes",
) -> StreamCohort:
    """Draw a cohort; the same arguments give the same cases.

    The posterior (`cues.posterior`) is that given the cues. Who reads them out of the noise knows a little less: at the
    small sizes, brightness in a shape is known to .16 standard deviations of the cue in the image, .1 in the volume.

    Args:
        mechanism: `additive` (A: the cues add up) or `exclusive` (B: the class is their exclusive or).
        count: how many cases.
        seed: of all chance.
        streams: name -> what it is; a volume of 16³ and an image of 24² when left out.
        classes: two or four, as many cases of each.
        pairing: `patient`, or `class`: each stream of a case is another person's of the same class.
        scene: `shapes` or `limb`.

    Raises:
        UsageError: E_CONFIG for a value that there is not.
    """
    chosen = dict(streams or SMALL)
    if scene not in SCENES:
        raise UsageError("E_CONFIG", f"Expected a scene of {', '.join(SCENES)}, got {scene}.", "Choose another scene.")
    rng = np.random.default_rng([seed, 0, len(chosen)])
    return StreamCohort(chosen, draw_cues(mechanism, classes, len(chosen), count, rng, pairing), seed, scene)
