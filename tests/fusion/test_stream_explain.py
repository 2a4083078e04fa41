"""Why a network of streams says what it says: maps on each stream's own grid, gates, and what it says without one."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.fusion.explanations import log_odds_direction
from pipeline.fusion.stream_explain import AFFINES, ExplainStreamsd, _Look, stream_gradcam
from pipeline.fusion.stream_net import StreamNet
from pipeline.fusion.streams import PackStreamsd
from pipeline.store.sections import Axis
from pipeline.words import in_words

STREAMS: dict[str, Any] = {
    "mr": {"kind": "volume", "size": [8, 8, 4]},
    "cxr": {"kind": "image", "size": [16, 12]},
    "cough": {"kind": "sound", "size": [8, 12]},
}
SIZES = {name: stream["size"] for name, stream in STREAMS.items()}
AXES = (Axis("Time", ((0.0, "0 s"),)), Axis("Frequency", ((0.5, "1000 Hz"),)))
NAMES = ("healthy", "ill", "covid")


def network(**more: Any) -> StreamNet:
    torch.manual_seed(1)
    made = StreamNet(SIZES, 3, width=4, levels=2, token=8, **more)
    for module in made.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
    return made.eval()


def case(*missing: str) -> dict[str, Any]:
    random = torch.Generator().manual_seed(2)
    streams = {name: torch.rand((1, *size), generator=random) for name, size in SIZES.items()}
    return PackStreamsd(STREAMS)({name: item for name, item in streams.items() if name not in missing})


def explain(made: StreamNet, methods: tuple[str, ...], **more: Any) -> ExplainStreamsd:
    return ExplainStreamsd(methods, made, STREAMS, NAMES, lambda _: AXES, **more)


def logits_of(made: StreamNet, given: dict[str, Any], available: torch.Tensor | None = None) -> torch.Tensor:
    there = given["available"] if available is None else available
    with torch.inference_mode():
        return made(given["image"][None], there[None])[0]


@pytest.mark.parametrize("mode", ["intermediate", "late"])
def test_a_map_is_the_first_order_of_what_a_change_of_features_does(mode: str) -> None:
    """Features of one stream, a little larger at one place: the log-odds change by what the map says of that place."""
    made, given = network(mode=mode), case()
    logits = logits_of(made, given)
    chosen = int(logits.argmax())
    maps = stream_gradcam(_Look(made, given), log_odds_direction(logits, chosen), level=0)
    assert [tuple(item.shape[2:]) for item in maps] == [tuple(size) for size in SIZES.values()]

    def odds(logits: torch.Tensor) -> float:
        others = [number for number in range(3) if number != chosen]
        return float(logits[chosen] - torch.logsumexp(logits[others], 0))

    at, share = (5, 7), 1e-2
    found = []
    for sign in (1, -1):

        def change(_: Any, __: Any, levels: list[torch.Tensor], sign: int = sign) -> None:
            levels[0][..., at[0], at[1]] *= 1 + sign * share

        handle = (
            made.encoders[1]
            .encoder.stages[0]
            .register_forward_hook(lambda module, inputs, out, change=change: change(module, inputs, [out]))
        )
        found.append(odds(logits_of(made, given)))
        handle.remove()
    slope = (found[0] - found[1]) / (2 * share)
    assert float(maps[1][0, 0][at]) == pytest.approx(max(0.0, slope), abs=2e-3)


def test_pictures_lie_as_they_are_drawn_and_a_sound_runs_from_left_to_right() -> None:
    made, given = network(), case()
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    found = explain(made, ("gradcam",))({**given, AFFINES: {"mr": affine}, "measures": {}})
    assert np.array_equal(found["fused_seen_mr"].affine.numpy(), affine)
    start = 8 * 8 * 4
    picture = given["image"][0, start : start + 16 * 12].reshape(16, 12)
    assert torch.equal(found["fused_seen_cxr"].as_tensor()[0, :, :, 0], picture)
    sound = given["image"][0, start + 16 * 12 :].reshape(8, 12)
    shown = found["fused_seen_cough"].as_tensor()[0, :, :, 0]
    assert torch.equal(shown.T, sound.flip(0))  # columns are time; the first row is the highest band
    for key in ("fused_seen_cxr", "fused_seen_cough"):  # columns to the patient's left, rows to the back
        assert nib.aff2axcodes(found[key].affine.numpy())[:2] == ("L", "P")
    assert found["fused_gradcam_cough"].shape == found["fused_seen_cough"].shape == (1, 12, 8, 1)
    shares = [found["measures"][f"fused_gradcam_share_{name}"] for name in STREAMS]
    assert sum(shares) == pytest.approx(1, abs=1e-3) and min(shares) >= 0


def test_without_a_stream_it_says_what_it_says_where_the_stream_is_missing() -> None:
    made, given = network(), case()
    found = explain(made, ("occlusion", "gates"))({**given, "measures": {}})["measures"]
    whole = torch.softmax(logits_of(made, given), 0)
    chosen = int(whole.argmax())
    for number, name in enumerate(STREAMS):
        available = given["available"].clone()
        available[number] = False
        chances = torch.softmax(logits_of(made, case(name)), 0)
        assert torch.allclose(chances, torch.softmax(logits_of(made, given, available), 0), atol=1e-6)
        assert found[f"fused_class_probability_without_{name}"] == pytest.approx(float(chances[chosen]), abs=1e-5)
        fall = float(chances[chosen] - whole[chosen])
        assert found[f"fused_class_probability_change_without_{name}"] == pytest.approx(fall, abs=1e-5)
        assert found[f"fused_class_without_{name}"] == NAMES[int(chances.argmax())]
    assert sum(found[f"fused_gate_share_{name}"] for name in STREAMS) == pytest.approx(1, abs=1e-3)


def test_a_missing_stream_has_no_picture_and_no_part() -> None:
    made, given = network(), case("cough")
    transform = explain(made, ("gradcam", "gates", "occlusion"))
    found = transform({**given, "measures": {}})
    assert "fused_seen_cough" not in found and "fused_gradcam_cough" not in found
    assert found["measures"]["fused_gradcam_share_cough"] == 0 == found["measures"]["fused_gate_share_cough"]
    assert "fused_class_without_cough" not in found["measures"] and "fused_class_without_mr" in found["measures"]
    only = transform({**case("cough", "mr"), "measures": {}})["measures"]
    assert not any(name.startswith("fused_class_without") for name in only)
    said = transform.sections(found)
    assert [picture.key for picture in said.sections[0].pictures] == ["seen_mr", "seen_cxr"]


def test_the_report_has_a_picture_a_stream_each_with_its_own_axes() -> None:
    made, given = network(), case()
    transform = explain(made, ("gradcam", "gates", "occlusion"))
    said = transform.sections(transform({**given, "measures": {}}))
    (section,) = said.sections
    by_key = {picture.key: picture for picture in section.pictures}
    assert by_key["seen_mr"].axes == () and by_key["seen_cough"].axes == AXES
    assert [axis.ticks[-1][1] for axis in by_key["seen_cxr"].axes] == ["16", "12"]
    assert sum(picture.rank > 0 for picture in section.pictures) == 1
    assert "does not prove" in section.sentences[0]
    assert [row[0] for row in section.tables[0].rows] == [in_words(name) for name in STREAMS]
    plain = explain(made, ()).sections({**explain(made, ())(given), "measures": {}})
    assert [len(picture.panels) for picture in plain.sections[0].pictures] == [1, 1, 1]


def test_one_map_of_early_fusion_goes_onto_each_stream() -> None:
    flat = {name: STREAMS[name] for name in ("cxr", "cough")}
    made = StreamNet({name: SIZES[name] for name in flat}, 3, mode="early", width=4, levels=2, token=8).eval()
    given = PackStreamsd(flat)({name: torch.rand(1, *SIZES[name]) for name in flat})
    found = ExplainStreamsd(("gradcam",), made, flat, NAMES, lambda _: AXES)({**given, "measures": {}})
    look = _Look(made, given)
    logits = logits_of(made, given)
    (common,) = stream_gradcam(look, log_odds_direction(logits, int(logits.argmax())))
    expected = functional.interpolate(common, (16, 12), mode="bilinear", align_corners=False)
    assert torch.allclose(found["fused_gradcam_cxr"].as_tensor()[..., 0], expected[0], atol=1e-6)
    assert found["measures"]["fused_gradcam_share_together"] == 1


@pytest.mark.parametrize(
    ("methods", "more", "words"),
    [
        (("gradcamm",), {}, "some of gradcam, gates, occlusion in explain, got gradcamm"),
        ("gradcam", {}, "some of"),
        (("gates",), {"mode": "late"}, "a network with gates"),
        (("gates",), {"block": "concat"}, "a network with gates"),
    ],
)
def test_what_there_is_nothing_for_is_refused(methods: Any, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"E_EXPLAIN: .*{words}"):
        explain(network(**more), methods)
    with pytest.raises(UsageError, match=r"E_EXPLAIN: .*gradcam_level"):
        explain(network(), ("gradcam",), gradcam_level=2)
