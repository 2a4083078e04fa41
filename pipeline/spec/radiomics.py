"""The `radiomics` section of a data spec: which images are measured in which masks, and how."""

from __future__ import annotations

from typing import Any

from pydantic import Field, StrictBool, field_validator

from pipeline.spec.explain import Model

#: The labels of the segmentation network, as `masks` names them.
SEGMENT_LABEL = "segment_label"


class Radiomics(Model):
    """What is measured of a run's cases: original intensities, on the images' own grids.

    Attributes:
        images: role -> how its image is prepared and what is measured: presets' names, or those of `configurations`.
        masks: in which masks; none: in all that have labels, and in what a segmentation network has found.
        labels: which of the masks' labels; none: all.
        configurations: name -> settings, over those of a preset where they name one:
            docs/reference/radiomics.md has every key.
        robustness: whether features are measured in perturbed versions, too, and how well they agree is told; keys with
            values say how regions are perturbed.
    """

    images: dict[str, tuple[str, ...]] = Field(min_length=1)
    masks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    configurations: dict[str, dict[str, Any]] = Field(default={})
    robustness: StrictBool | dict[str, Any] = False

    @field_validator("images", mode="before")
    @classmethod
    def _listed(cls, images: Any) -> Any:
        """One name needs no list."""
        if not isinstance(images, dict):
            return images
        return {role: (names,) if isinstance(names, str) else names for role, names in images.items()}
