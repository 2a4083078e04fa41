"""How names of files end that are pictures, sounds and volumes; what lies in a file, its reader finds out."""

from __future__ import annotations

import re
from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".mp3")
VOLUMES = (".nii", ".nii.gz")


def ending_of(path: Path) -> str:
    """The ending of a file's name in small letters, `.nii.gz` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def volume_stem(path: Path) -> str:
    """The name of a NIfTI file without `.nii`, `.nii.gz`, `.hdr` or `.hdr.gz`; any other name as it is."""
    return re.sub(r"\.(nii|hdr)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
