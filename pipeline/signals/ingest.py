"""Pictures and sounds of the input as a run keeps them: without anything that a file says beside its values."""

from __future__ import annotations

import io
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from scipy.io import wavfile

from pipeline import geometry, volumes
from pipeline.cases import Document
from pipeline.errors import CaseError, told_of
from pipeline.grey import read_grey
from pipeline.signals.sound import Sound, read_sound
from pipeline.signals.transforms import add_flags
from pipeline.spec.spec import kinds

Data = Mapping[Hashable, Any]


class _Ingestd(MapTransform):
    """Reads files of a case under keys that it may lack.

    Args:
        keys: the roles; one that a case lacks is left out.
        needed: those of them that every case has.
    """

    #: Of what the stage writes.
    kind = ""

    def __init__(self, keys: Sequence[str], needed: Collection[str] = ()) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.needed = frozenset(needed)

    def writes(self) -> dict[str, str]:
        """What the stage writes: key -> kind."""
        return kinds(map(str, self.keys), self.kind, self.needed)


class IngestPicturesd(_Ingestd):
    """Read the pictures of a case: paths become images (1, I, J, 1) as radiographs of DICOM are, in the file's values.

    They lie in the axial plane, with the first pixel as their origin, and pixels of 1 mm, which the case's flags say is
    not known. The image says which value is white, and so does the NIfTI file that is made of it (`cal_max`). Arguments
    as of `_Ingestd`.

    Raises:
        CaseError: as `pipeline.grey.read_grey`.
    """

    kind = "image"

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Read."""
        case = dict(data)
        for key in self.key_iterator(case):
            with told_of(str(key)):
                found = read_grey(case[key])
            image = volumes.volume(torch.from_numpy(found.values).T[None, ..., None], geometry.LPS_RAS)
            image.meta[volumes.WHITE] = found.white
            case[key] = image
            add_flags(case, key, (*found.flags, "N_NO_SPACING: 1 mm stands for its pixels"))
        return case


class IngestSoundsd(_Ingestd):
    """Read the sounds of a case: paths become WAV files of one channel, 32-bit floats at the one rate of sounds.

    A recorder's tags, which may name a patient, do not go into them. Arguments as of `_Ingestd`.

    Raises:
        CaseError: as `pipeline.signals.sound.read_sound`; E_VERIFY.
    """

    kind = "document"

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Read."""
        case = dict(data)
        for key in self.key_iterator(case):
            with told_of(str(key)):
                found = read_sound(case[key])
            case[key] = Document(".wav", wav_of(found))
            add_flags(case, key, found.flags)
            measures = {f"{key}_seconds": round(len(found.samples) / found.rate_hz, 3), f"{key}_rate_hz": found.rate_hz}
            case["measures"] = {**case.get("measures", {}), **measures}
        return case


def wav_of(sound: Sound) -> bytes:
    """A WAV file of one channel, 32-bit floats; the same for the same samples.

    Raises:
        CaseError: E_VERIFY when it does not hold them.
    """
    stream = io.BytesIO()
    samples = np.asarray(sound.samples, dtype=np.float32)
    wavfile.write(stream, sound.rate_hz, samples)
    stream.seek(0)
    rate_hz, held = wavfile.read(stream)
    if rate_hz != sound.rate_hz or not np.array_equal(held, samples):
        raise CaseError("E_VERIFY", "The WAV file does not hold the samples that were written.")
    return stream.getvalue()
