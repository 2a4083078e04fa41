"""Streams of a data spec and of a training: what is taken, what is refused, and what a checkpoint keeps of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.spec.spec import load_spec
from pipeline.spec.streams import (
    agreeing_streams,
    given_streams,
    names_by_kind,
    packed_shape,
    plain_streams,
    sizes_of,
    streams_of,
)

VOLUME: dict[str, Any] = {"kind": "volume", "size": [8, 10, 12]}
IMAGE: dict[str, Any] = {"kind": "image", "size": [24, 20]}
SOUND: dict[str, Any] = {"kind": "sound", "size": [64, 96], "seconds": 2.0}
SPEC = "name: x\ndescription: y\nroles: {{mr: {{modality: MR}}}}\nstreams:\n  mr: {{kind: volume, {more}}}\n"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({**IMAGE, "size": [8, 8, 8]}, r"`image` is I, J, got \[8, 8, 8\]"),
        ({**VOLUME, "size": [8, 8]}, r"`volume` is I, J, K, got \[8, 8\]"),
        ({**SOUND, "size": [64]}, r"`sound` is bands, frames"),
        ({**IMAGE, "size": [0, 8]}, r"1 to 4096 along each side"),
        ({**VOLUME, "size": [4096, 4096, 4096]}, r"33,554,432 in all"),
        ({**IMAGE, "size": [8.5, 8]}, r"size.0: must be a valid integer, got 8.5"),
        ({**IMAGE, "siz": 3}, r"unknown key siz; did you mean `size`\?"),
        ({**IMAGE, "kind": "imag"}, r"kind: must be 'volume', 'image' or 'sound', got imag; did you mean `image`\?"),
        ({"kind": "image"}, r"lacks the key size"),
        ({**IMAGE, "intensity": "zscore"}, r"`intensity` is one of full, percentiles or \[low, high\], got zscore"),
        ({**IMAGE, "intensity": [3.0, 1.0]}, r"`intensity` is one of full"),
        ({**VOLUME, "intensity": "zscor"}, r"got zscor; did you mean `zscore`\?"),
        ({**SOUND, "intensity": "full"}, r"`intensity` is not for the kind `sound`"),
        ({**IMAGE, "spacing_mm": 2.0}, r"`spacing_mm` is not for the kind `image`"),
        ({**VOLUME, "spacing_mm": [1.0, 2.0]}, r"1 or 3 voxel sides above 0 mm"),
        ({**VOLUME, "spacing_mm": -1.0}, r"1 or 3 voxel sides above 0 mm"),
        ({**VOLUME, "window": [40.0, 400.0]}, r"`window` goes with `intensity: ct`"),
        ({**VOLUME, "intensity": "ct", "window": [40.0, 0.0]}, r"positive width"),
        ({**SOUND, "seconds": 0.0}, r"seconds: must be greater than 0"),
        ("volume", r"must be"),
    ],
)
def test_a_stream_that_is_none_is_refused(stream: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"E_CONFIG.*{message}"):
        streams_of({"a": stream})


def test_streams_say_what_the_network_is_given() -> None:
    given = {"mr": VOLUME, "cxr": IMAGE, "cough": SOUND}
    assert sizes_of(given) == {"mr": [8, 10, 12], "cxr": [24, 20], "cough": [64, 96]}
    assert packed_shape(given) == [960 + 480 + 6144]
    assert names_by_kind(given) == {"volume": ["mr"], "image": ["cxr"], "sound": ["cough"]}
    assert list(streams_of(given, ["cough", "mr"])) == ["cough", "mr"]
    with pytest.raises(UsageError, match=r"E_MODALITY.*got cx; did you mean `cxr`"):
        streams_of(given, ["cx"])
    for bad in ({}, {"a b": IMAGE}):
        with pytest.raises(UsageError, match="E_CONFIG"):
            streams_of(bad)


def test_a_checkpoint_keeps_what_a_stream_can_be_made_of_again() -> None:
    given = {"ct": {**VOLUME, "spacing_mm": 2, "intensity": "ct", "window": [40, 80]}, "cxr": IMAGE, "cough": SOUND}
    plain = plain_streams(given)
    assert streams_of(plain) == streams_of(given) and plain_streams(plain) == plain
    assert plain["cxr"] == {"kind": "image", "size": [24, 20], "intensity": "full"}
    assert plain["ct"]["window"] == [40.0, 80.0] and plain["ct"]["spacing_mm"] == [2.0]


def test_the_streams_of_a_data_spec(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(SPEC.format(more="size: [8, 10, 12]"))
    assert given_streams({}, str(path)) == streams_of({"mr": VOLUME}) == load_spec(path).streams
    with pytest.raises(UsageError, match=r"E_CONFIG.*either"):
        given_streams({"mr": VOLUME}, str(path))
    path.write_text(SPEC.format(more="siz: [8, 10, 12]"))
    with pytest.raises(UsageError, match=r"E_SPEC.*line 5: streams.mr.siz: unknown key; did you mean `size`"):
        load_spec(path)
    with pytest.raises(UsageError, match=r"E_SPEC.*Expected `streams` in the data spec ct_mr_head, got none"):
        given_streams({}, "ct_mr_head")


def test_the_streams_of_a_checkpoint_keep_their_names() -> None:
    """A spec may have streams that the network does not look at, or lack some; one under another name is neither."""
    both = {"ct": IMAGE, "cough_sound": SOUND}
    renamed = {"ct": both["ct"], "cough": both["cough_sound"]}
    for trained, given in ((both, {}), (both, {"ct": both["ct"]}), ({"ct": both["ct"]}, both)):
        assert list(agreeing_streams(trained, given)) == list(trained)
    with pytest.raises(UsageError, match=r"E_CHECKPOINT: Expected the streams ct, cough_sound, .* got cough"):
        agreeing_streams(both, renamed)
