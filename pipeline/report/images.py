"""What the stages of a case have left: what they say to a reader, and their images, read when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.data import MetaTensor
from monai.transforms import LoadImage

from pipeline.cases import Artifact, Record
from pipeline.errors import CaseError
from pipeline.store.files import sha256_file
from pipeline.store.sections import SECTIONS, Sections
from pipeline.volumes import oriented

VOLUMES = ("image", "label", "probability")


class CaseImages:
    """The images of a case by their keys, each read once, in canonical axes.

    Args:
        records: of the case's stages, in order; of a key that two of them wrote, the later one counts.
        dataset_dir: the run folder.
        given: files of images that no stage has made, by their keys: the two images of `tandem register`.
    """

    def __init__(self, records: Sequence[Record], dataset_dir: Path, given: Mapping[str, Path]) -> None:
        self._dataset_dir, self._given = dataset_dir, given
        self._artifacts = {item.key: item for record in records for item in made(record) if item.kind in VOLUMES}
        self._read: dict[str, MetaTensor] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._artifacts or key in self._given

    def __getitem__(self, key: str) -> MetaTensor:
        """The image, (C, I, J, K).

        Raises:
            CaseError: E_CHANGED when its file is not what was recorded.
        """
        if key not in self._read:
            item = self._artifacts.get(key)
            path = recorded_file(item, self._dataset_dir) if item else self._given[key]
            load = LoadImage(image_only=True, reader="NibabelReader", ensure_channel_first=True)
            self._read[key] = oriented(load(path))
        return self._read[key]


def made(record: Record) -> tuple[Artifact, ...]:
    """The outputs of a stage that is done."""
    return record.artifacts if record.status == "done" else ()


def recorded_file(item: Artifact, dataset_dir: Path) -> Path:
    """The file of an output.

    Raises:
        CaseError: E_CHANGED when it is not there, or not what was recorded.
    """
    path = dataset_dir / item.path
    if not path.is_file() or sha256_file(path) != item.sha256:
        raise CaseError("E_CHANGED", f"The content of {item.path} is not what was recorded.")
    return path


def sections_of(record: Record, dataset_dir: Path) -> Sections:
    """What a stage says to a reader; nothing where it has no such output.

    Raises:
        CaseError: E_CHANGED when its file is not what was recorded, E_INTERNAL when it holds something else.
    """
    item = next((item for item in made(record) if item.key == SECTIONS), None)
    if item is None:
        return Sections()
    text = recorded_file(item, dataset_dir).read_text(encoding="utf-8")
    try:
        return Sections.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise CaseError(
            "E_INTERNAL", f"Expected the sections of a report in {item.path}, got something else."
        ) from error
