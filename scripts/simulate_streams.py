"""Simulate cases of streams that share no grid: volumes, images and sounds as files, with the true posterior."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.typed import script
from pipeline.errors import UsageError
from tests.phantoms.streams.cohort import Shown, simulate_streams
from tests.phantoms.streams.cough import RATE_HZ
from tests.phantoms.streams.files import write_cohort, write_four_classes


def main(  # noqa: PLR0913 - each is a switch
    out: Annotated[Path, typer.Option(help="Where to write the files, cases.csv and truth.csv.")],
    cases: Annotated[int, typer.Option(help="How many.")] = 60,
    mechanism: Annotated[str, typer.Option(help="additive (A) or exclusive (B: the streams' cues have to meet).")] = (
        "additive"
    ),
    classes: Annotated[int, typer.Option(help="2 or 4.")] = 2,
    pairing: Annotated[
        str,
        typer.Option(help="patient, or class: a case is made of several persons of a class; of --layout the default."),
    ] = "",
    scene: Annotated[str, typer.Option(help="shapes, or limb: MR and radiograph of a broken bone.")] = "shapes",
    volume: Annotated[str, typer.Option(help="Voxels I,J,K; empty: none.")] = "16,16,16",
    image: Annotated[str, typer.Option(help="Pixels I,J; empty: none.")] = "24,24",
    seconds: Annotated[float, typer.Option(help="Of a cough; 0: none.")] = 0.0,
    layout: Annotated[
        bool, typer.Option(help="Write {train,valid,test}/{CT,CXR,Cough sound}/{class} instead.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
) -> None:
    """Simulate; `--layout` takes `--cases` (of train; valid and test have a third), `--pairing` and `--seed` alone."""
    try:
        paired: Any = pairing or ("class" if layout else "patient")
        if layout:
            written = write_four_classes(out, (cases, cases // 3, cases // 3), seed, paired)
        else:
            streams = _streams(volume, image, seconds)
            written = write_cohort(
                out,
                simulate_streams(mechanism, cases, seed, streams, classes, paired, scene),  # type: ignore[arg-type]
            )
    except UsageError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    typer.echo(f"Written: {written}")


def _streams(volume: str, image: str, seconds: float) -> dict[str, Shown]:
    found = {"volume": Shown("volume", _size(volume))} if volume else {}
    found |= {"image": Shown("image", _size(image))} if image else {}
    found |= {"sound": Shown("sound", (round(seconds * RATE_HZ),))} if seconds else {}
    if not found:
        raise UsageError("E_CONFIG", "Expected one stream or more, got none.", "Give a size or seconds.")
    return found


def _size(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError("E_CONFIG", f"Expected whole numbers with commas, got {text}.", "Write 16,16,16.") from error


if __name__ == "__main__":
    script(main)
