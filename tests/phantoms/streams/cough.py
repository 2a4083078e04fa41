"""Coughs by source and filter: bursts of noise, then of a voiced source, through the resonances of the airways.

Source: Fant, Acoustic theory of speech production, 1960 (source and filter); Klatt, J Acoust Soc Am 67, 1980 (digital
resonator); Korpáš et al., Pulm Pharmacol 9, 1996 (a cough: explosive burst, noisy phase, voiced phase).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Floats = npt.NDArray[np.float64]
RATE_HZ = 16_000
#: Resonances of an open airway, and their widths at half power.
FORMANTS_HZ, WIDTHS_HZ = (600.0, 1500.0, 2600.0), (90.0, 120.0, 160.0)
#: One standard deviation of the first cue multiplies the resonances by this.
FORMANT_FACTOR = 1.06
#: Log odds of the voiced part of the source without a cue, and what one standard deviation of the second adds.
VOICED_LOG_ODDS, VOICED_CUE = 0.0, 0.8
PITCH_HZ = (180.0, 260.0)
#: How long a cough is, and how fast its burst rises and all of it falls.
COUGH_S, RISE_S, FALL_S = 0.35, 0.008, 0.09
#: Peak of a sound, and of the room's noise beside it.
PEAK, ROOM = 0.7, 0.002


@dataclass(frozen=True)
class Airway:
    """What shapes a person's cough.

    Attributes:
        formants_hz: resonances.
        voiced: part of the source that is voiced, from 0 to 1; the rest is noise.
        pitch_hz: of the voiced part.
    """

    formants_hz: tuple[float, ...]
    voiced: float
    pitch_hz: float


def airway(cues: npt.ArrayLike, rng: np.random.Generator) -> Airway:
    """The airway that cues shape.

    Args:
        cues: in standard deviations; the first raises the resonances, a second one voices the source.
        rng: of the pitch.
    """
    first, second = (*np.atleast_1d(np.asarray(cues, np.float64)).tolist(), 0.0)[:2]
    voiced = 1 / (1 + np.exp(-(VOICED_LOG_ODDS + VOICED_CUE * second)))
    return Airway(tuple(hz * FORMANT_FACTOR**first for hz in FORMANTS_HZ), float(voiced), rng.uniform(*PITCH_HZ))


def cough_sound(
    person: Airway, samples: int, rng: np.random.Generator, rate_hz: int = RATE_HZ
) -> npt.NDArray[np.float32]:
    """One to three coughs in a quiet room.

    Args:
        person: whose.
        samples: how many; at least as many as a cough has (`COUGH_S`).
        rng: of the times, the noise and the loudness.
        rate_hz: samples a second.

    Returns:
        (samples,) from -1 to 1.
    """
    length = min(samples, round(COUGH_S * rate_hz))
    sound = ROOM * rng.standard_normal(samples)
    for start in _starts(samples, length, rng):
        one = through_formants(_source(person, length, rng, rate_hz), person.formants_hz, rate_hz)
        sound[start : start + length] += rng.uniform(0.6, 1.0) * one / np.abs(one).max()
    return np.asarray(PEAK * sound / np.abs(sound).max(), np.float32)


def through_formants(source: Floats, formants_hz: Sequence[float], rate_hz: int) -> Floats:
    """A source through resonators one after another, each of gain 1 at 0 Hz.

    Source: Klatt 1980, y[n] = A x[n] + B y[n - 1] + C y[n - 2].
    """
    found = source
    for centre, width in zip(formants_hz, WIDTHS_HZ, strict=True):
        c = -np.exp(-2 * np.pi * width / rate_hz)
        b = 2 * np.exp(-np.pi * width / rate_hz) * np.cos(2 * np.pi * centre / rate_hz)
        found = lfilter([1 - b - c], [1, -b, -c], found)
    return np.asarray(found)


def _source(person: Airway, length: int, rng: np.random.Generator, rate_hz: int) -> Floats:
    """Noise that bursts and fades, and pulses of the vocal folds that follow it; both of power 1 when full."""
    seconds = np.arange(length) / rate_hz
    fading = np.minimum(seconds / RISE_S, np.exp(-(seconds - RISE_S) / FALL_S))
    noise = rng.standard_normal(length)
    late = np.clip((seconds - COUGH_S / 6) / (COUGH_S / 6), 0, 1)
    pulses = np.diff(np.floor(seconds * person.pitch_hz), prepend=0.0) * np.sqrt(rate_hz / person.pitch_hz)
    return np.asarray(fading * (np.sqrt(1 - person.voiced) * noise + np.sqrt(person.voiced) * late * pulses))


def _starts(samples: int, length: int, rng: np.random.Generator) -> list[int]:
    """Where coughs start, one in each equal part of the time that has room for it."""
    parts = int(rng.integers(1, 4))
    parts = max(1, min(parts, samples // length))
    room = samples // parts
    return [part * room + int(rng.integers(0, room - length + 1)) for part in range(parts)]
