"""How fast sounds become log-mel spectrograms, beside librosa: a section of docs/benchmarks/streams.md.

python -m benchmarks.stream_speed [--page docs/benchmarks/streams.md]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.document import write_section
from pipeline.console import echo
from pipeline.signals.mel import log_mel

RATE_HZ, SECONDS, COUNT, ROUNDS = 16_000, 4.0, 50, 5
BANDS, WINDOW, HOP = 64, 512, 256
#: Of the largest value: the two compute the same.
TOLERANCE = 1e-6


def main(page: Annotated[Path | None, typer.Option(help="That takes the section.")] = None) -> None:
    """Time both on the same sounds, in turns."""
    import librosa

    torch.set_num_threads(1)
    sounds = 0.1 * np.random.default_rng(0).standard_normal((COUNT, round(RATE_HZ * SECONDS)))

    def peer(sound: Any) -> Any:
        power = librosa.feature.melspectrogram(
            y=sound, sr=RATE_HZ, n_fft=WINDOW, hop_length=HOP, n_mels=BANDS, pad_mode="constant"
        )
        return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)

    def ours(sound: Any) -> Any:
        return log_mel(sound, RATE_HZ, BANDS, WINDOW, HOP)[0].numpy()

    expected = peer(sounds[0])
    apart = float(np.abs(ours(sounds[0]) - expected).max() / np.abs(expected).max())
    if apart > TOLERANCE:
        raise SystemExit(f"Expected the spectrogram of librosa, got one that is {apart:.1e} of its largest value off.")
    rounds = [(seconds(ours, sounds), seconds(peer, sounds)) for _ in range(ROUNDS)]
    ratio = float(np.median([theirs / own for own, theirs in rounds]))
    own, theirs = (1000 * float(np.median(part)) / COUNT for part in zip(*rounds, strict=True))
    text = (
        "## Sounds\n\n"
        f"The log-mel spectrogram of {SECONDS:g} s at {RATE_HZ:,} Hz, {BANDS} bands, one thread, medians of {ROUNDS} "
        f"rounds in turns over {COUNT} sounds: {own:.2f} ms of processor time a sound; librosa {version('librosa')} "
        f"{theirs:.2f} ms, {ratio:.2f} times as long. They differ by {apart:.1e} of the largest value. "
        "Written by `python -m benchmarks.stream_speed`."
    )
    echo(text)
    if page is not None:
        write_section(page, "Streams", "sounds", text)


def seconds(work: Callable[[Any], Any], sounds: Any) -> float:
    """Processor seconds for all sounds."""
    started = time.process_time()
    for sound in sounds:
        work(sound)
    return time.process_time() - started


if __name__ == "__main__":
    typer.run(main)
