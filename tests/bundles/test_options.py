"""What a user may change in a bundle: misspelt keys and values of another kind are refused, documented ones are not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from pipeline.errors import UsageError
from pipeline.run.options import require_known, require_typed, workflow
from pipeline.shipped import shipped
from pipeline.words import unit_of

FUSE = "bundles/fuse/configs"
TRAIN, INFERENCE = f"{FUSE}/train.yaml", f"{FUSE}/inference.yaml"
CONFIGS = sorted(path.relative_to(shipped()).as_posix() for path in shipped("bundles").glob("*/configs/*.yaml"))


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shipped())


def files_of(config: str) -> list[str]:
    """A configuration, over the one that it lies over."""
    return [TRAIN, config] if config == f"{FUSE}/evaluate.yaml" else [config]


def of_kind(*kinds: type) -> list[tuple[str, str]]:
    """Every key whose value in the file is of a kind, with its configuration."""
    read = [(config, ConfigParser.load_config_file(config)) for config in CONFIGS_AT.values()]
    return [
        (shipped_name(config), key)
        for config, content in read
        for key, value in content.items()
        if type(value) in kinds and not str(value).startswith(("$", "@"))
    ]


CONFIGS_AT = {config: str(shipped(config)) for config in CONFIGS}


def shipped_name(path: str) -> str:
    return Path(path).relative_to(shipped()).as_posix()


def refused(config: str, key: str, value: object) -> str:
    with pytest.raises(UsageError) as raised:
        require_known(files_of(config), {key: value})
    assert raised.value.code == "E_OPTION" and key in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("config", CONFIGS)
def test_every_misspelt_key_is_refused_with_the_key_that_was_meant(config: str) -> None:
    keys = [key for key in ConfigParser.load_config_file(config) if len(key) > 4]
    assert keys
    for key in keys:
        wrong = key[:-2] + key[-1]
        assert refused(config, wrong, 1).endswith(f"did you mean {key}?"), wrong


@pytest.mark.parametrize(
    ("config", "key"), [*of_kind(bool), (TRAIN, "amp"), (INFERENCE, "bfloat16_on_cpu")], ids=lambda value: value
)
@pytest.mark.parametrize("given", ["false", "true", "yes"])
def test_a_switch_given_as_a_text_is_refused(config: str, key: str, given: str) -> None:
    assert refused(config, key, given).startswith(f"Expected True or False, with a capital, for {key}, got {given}")


@pytest.mark.parametrize(("config", "key"), of_kind(int, float), ids=lambda value: value)
def test_a_word_for_a_number_is_refused(config: str, key: str) -> None:
    for given in ("three", "0,5", True, [1]):
        assert f"number for {key}, got" in refused(config, key, given)


@pytest.mark.parametrize(("config", "key"), of_kind(str), ids=lambda value: value)
def test_a_number_or_a_list_for_a_text_is_refused(config: str, key: str) -> None:
    for given in (2024, False, ["a"], None):
        assert refused(config, key, given).startswith(f"Expected a text for {key}, got")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("max_epochs", 2.5, "a whole number"),
        ("patch", "64", "a list"),
        ("patch", ["64", 64, 64], "a list, each a number"),
        ("modalities", [1, 2], "a list, each a text"),
        ("encoder_weights", "med3d.pth", "a mapping"),
        ("fold_seed", "two", "a whole number"),
        ("network_def::widht", 8, "did you mean network_def::width?"),
        ("network_def::width", "wide", "a number"),
        ("train::preprocessing::transforms::2::probb", 0.1, "did you mean train::preprocessing::transforms::2::prob?"),
        ("train::preprocessing::transforms::99::prob", 0.1, "a key that the bundle has"),
        ("train::preprocessing::transforms::2::prob", "often", "a number"),
        ("validate::dataloadr::batch_size", 2, "did you mean validate::dataloader::batch_size?"),
        ("flags", True, "a key that the bundle has"),
        ("fold_seed", "$@seed + 1", "a whole number"),
        ("device", {"_target_": "os.system", "command": "true"}, "a plain value"),
        ("+network_def", {"width": 8}, "did you mean network_def?"),
    ],
)
def test_what_else_is_refused(key: str, value: object, words: str) -> None:
    assert words in refused(TRAIN, key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_epochs", 3),
        ("rate", 1),
        ("fold_seed", 2),
        ("amp", False),
        ("patch", (64, 64, 64)),
        ("spacing_mm", [2.0]),
        ("ct_window", [37.5, 400]),
        ("device", "cpu"),
        ("encoder_weights", {"ct": "med3d.pth"}),
        ("network_def::width", 8),
        ("network_def#width", 8),
        ("optimizer::betas", [0.9, 0.99]),
        ("validate::handlers", []),
        ("train::preprocessing::transforms::2::prob", 0),
        ("bundle_root", "bundles/fuse"),
    ],
)
def test_what_is_accepted(key: str, value: object) -> None:
    require_known([TRAIN], {key: value})


@pytest.mark.parametrize("bundle", ["calibrate", "fuse"])
def test_a_level_of_sets_is_a_fraction(bundle: str) -> None:
    require_known([shipped("bundles", bundle, "configs", "calibrate.yaml")], {"set_level": 0.1})


def test_another_component_has_other_arguments() -> None:
    require_known([TRAIN], {"optimizer::momentum": 0.9, "optimizer::_target_": "torch.optim.SGD"})
    assert "optimizer::momentum" in refused(TRAIN, "optimizer::momentum", 0.9)


#: Names that folders have, and that MONAI's parser, or the library that reads its command line, would not leave alone.
HOSTILE = (
    "$__import__('pathlib').Path('made').touch() or 'x'",
    "@max_epochs",
    "%other.yaml::x",
    "run#1",
    "a/b#c",
    "x@#y",
)


@pytest.mark.parametrize("text", [*HOSTILE, "(run)", "run ", "{'_target_': 'os.system', 'command': 'touch made'}"])
@pytest.mark.parametrize("key", ["dataset_dir", "output_dir", "device"])
def test_typed_text_that_would_not_stay_itself_is_refused(key: str, text: str, tmp_path: Path) -> None:
    for words in ([f"--{key}", text], [f"--{key}={text}"]):
        with pytest.raises(UsageError, match=rf"^E_OPTION: Expected .* for {key}, got"):
            require_typed(["run", "--config_file", str(shipped(TRAIN)), *words])
    assert not Path("made").exists()


def test_quoted_words_and_lists_of_paths_are_plain() -> None:
    words = ["--table_name", "'2024'", "--dataset-dir", "./$x", "--modalities", "['ct','mr']"]
    require_typed(["run", "--config_file", TRAIN, *words])


@pytest.mark.parametrize("text", [*HOSTILE, r"\$'\"#@%::\x23\n", "\udcff#", "plain"])
def test_from_python_every_text_stays_itself(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"dataset_dir": text, "modalities": [text], "table_name": "t.csv"}
    parser = workflow([shipped(TRAIN)], given).parser
    parser["path"] = "$@dataset_dir + '/' + @table_name"
    assert parser.get_parsed_content("path") == f"{text}/t.csv"
    assert parser.get_parsed_content("modalities") == [text]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        "run --config_file {f} --max_epoch 3",
        "run --config_file={f} --max_epoch=3",
        "run training --config_file {f} --max-epoch 3",
        "run_workflow --config_file {f} --max_epoch 3",
        "run --args_file {args}",
        "run --args_file {args} --config_file {f}",
        "run --config_file {f} --run_id max_epochs --max_epoch 3",
    ],
)
def test_every_way_to_type_it(words: str, tmp_path: Path) -> None:
    args = tmp_path / "args.yaml"
    args.write_text(f"config_file: {TRAIN}\nmax_epoch: 3\n")
    with pytest.raises(UsageError, match="got max_epoch: did you mean max_epochs"):
        require_typed(words.format(f=TRAIN, args=args).split())


def test_a_switch_that_monai_would_drop_is_refused() -> None:
    with pytest.raises(UsageError, match="Expected a value for patience, got None"):
        require_typed(["run", "--config_file", TRAIN, "--patience", "None"])


def test_tracking_adds_its_own_keys() -> None:
    require_typed(["run", "--config_file", TRAIN, "--tracking", "mlflow", "--experiment_name", "mine"])
    require_typed(["run", "--config_file", TRAIN, "--tracking", f"{FUSE}/overlays/tensorboard.yaml"])
    with pytest.raises(UsageError, match="got experiment_name"):
        require_typed(["run", "--config_file", TRAIN, "--experiment_name", "mine"])


@pytest.mark.parametrize(
    "overlay",
    [path for path in shipped("bundles").glob("*/configs/overlays/*.yaml") if path.stem != "tensorboard"],
    ids=lambda path: path.stem,
)
def test_the_shipped_overlays_are_accepted(overlay: Path) -> None:
    names = ("inference",) if overlay.stem.endswith("_inference") else ("train", "inference")
    base = next(path for name in names if (path := overlay.parents[1] / f"{name}.yaml").is_file())
    require_known([base, overlay], {})


@pytest.mark.parametrize("path", sorted(shipped("bundles").glob("*/configs/**/*.yaml")), ids=lambda path: path.stem)
def test_a_quantity_with_a_unit_takes_a_fraction(path: Path) -> None:
    """`timeout_s: 900` would refuse half a second."""

    def whole(found: Any, key: str) -> list[str]:
        if isinstance(found, dict):
            return [name for part, value in found.items() for name in whole(value, str(part))]
        return [key] if isinstance(found, int) and not isinstance(found, bool) and unit_of(key) else []

    assert whole(yaml.safe_load(path.read_text()), "") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_epoch: 3\n", "got max_epoch: did you mean max_epochs?"),
        ("max_epochs: three\n", "Expected a whole number for max_epochs in mine.yaml, got three"),
        ("augmentation: 'false'\n", "Expected True or False"),
        ("network_def::widht: 3\n", "did you mean network_def::width?"),
        ("+network_def: {widht: 3}\n", "did you mean network_def::width?"),
        ("extra: 3\n", "got extra"),
    ],
)
def test_an_overlay_of_ones_own_is_read_as_strictly(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError) as raised:
        require_known([TRAIN, tmp_path / "mine.yaml"], {})
    assert raised.value.code == "E_CONFIG" and "in mine.yaml" in raised.value.message
    assert words in raised.value.message


def test_an_overlay_may_add_what_something_refers_to(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text('base_rate: 0.1\nrate: "$@base_rate / 2"\n')
    require_known([TRAIN, tmp_path / "mine.yaml"], {"base_rate": 0.2})


def test_from_python_it_is_refused_alike() -> None:
    with pytest.raises(UsageError, match=r"E_OPTION.*max_epochs"):
        workflow([Path(TRAIN)], {"max_epoch": 3})
    assert workflow([Path(TRAIN)], {"max_epochs": 3}).parser["max_epochs"] == 3


def documented() -> Iterator[tuple[str, str]]:
    """Every command in the documents and in the bundles' own comments that runs a bundle."""
    sources = [shipped("README.md"), *shipped("docs").rglob("*.md"), *shipped("bundles").rglob("*.md")]
    for path in (*sources, *shipped("bundles").rglob("*.yaml")):
        lines = re.sub(r"^#", "", path.read_text(), flags=re.M) if path.suffix == ".yaml" else path.read_text()
        own = next(iter(re.findall(r"\bB=(bundles/\w+/configs)", lines)), FUSE)
        text = re.sub(r"(\\|(?<=--config_file))\n\s*", " ", lines).replace("$B", own)
        for command in re.findall(r"-m monai\.bundle (run [^`\n]*--config_file[^`\n]*)", text):
            yield path.name, command


@pytest.mark.parametrize(("source", "command"), documented(), ids=lambda value: value[:60])
def test_every_documented_command_is_accepted(source: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "my_overlay.yaml").write_text("bias_correction: never\n")
    (tmp_path / "my_streams.yaml").write_text("streams: {xray: {kind: image, size: [64, 64]}}\n")
    for name in ("my_overlay.yaml", "my_streams.yaml"):
        command = command.replace(name, str(tmp_path / name))
    command = command.replace("…", "")
    require_typed(shlex.split(command))


def test_there_are_documented_commands() -> None:
    assert len(list(documented())) >= 25


def test_every_documented_option_of_a_training_is_accepted() -> None:
    """Options that the text of docs/how-to/train-and-fuse.md names, for whichever of the configurations they are."""
    text = shipped("docs", "how-to", "train-and-fuse.md").read_text()
    options = set(re.findall(r"`(--\w[^`\n]*)`", text)) - {"--settings labels=3", "--config_file"}
    assert len(options) > 10
    bundles = ([TRAIN], [TRAIN, f"{FUSE}/evaluate.yaml"], [INFERENCE])
    for option in sorted(options):
        words = shlex.split(option.replace("$B", FUSE))
        said = []
        for files in bundles:
            try:
                require_typed(["run", "--config_file", str(files), *words])
            except UsageError as error:
                said.append(str(error))
        assert len(said) < len(bundles), said
