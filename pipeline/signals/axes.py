"""What runs along the sides of a sound's picture: seconds across, Hz up."""

from __future__ import annotations

import numpy as np

from pipeline.signals.mel import band_middles_hz
from pipeline.signals.sound import RATE_HZ
from pipeline.spec.streams import Stream
from pipeline.store.sections import Axis

#: Frequencies that have a tick, Hz, and steps between ticks of time, s.
FREQUENCIES = (500, 1000, 2000, 4000)
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
MOST_TICKS = 6


def mel_axes(stream: Stream) -> tuple[Axis, Axis]:
    """Time and frequency of a log-mel of a stream's size (bands, frames), as `ReadSoundsd` makes it."""
    bands, _ = stream.size
    step = next((step for step in STEPS if stream.seconds / step <= MOST_TICKS), STEPS[-1])
    seconds = np.arange(step, stream.seconds + 1e-9, step)  # the corner is left to the lowest frequency
    across = tuple((float(at / stream.seconds), f"{at:g} s") for at in seconds)
    middles = band_middles_hz(RATE_HZ, bands)
    shown = [hz for hz in FREQUENCIES if middles[0] <= hz <= middles[-1]]
    places = (np.interp(shown, middles, np.arange(bands)) + 0.5) / bands
    up = tuple((float(place), f"{hz:g} Hz") for place, hz in zip(places, shown, strict=True))
    return Axis("Time", across), Axis("Frequency", up)
