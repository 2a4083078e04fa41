"""What may be changed in a bundle: a key that it does not have, or a value of another kind, is refused.

MONAI merges what was typed into a configuration without a word: `--max_epoch 3` would change nothing, and
`--mirror false` would be a text that counts as true. Nothing of what was typed is evaluated, here or by MONAI: a text
that its parser would take for more than a text is refused on its command line, and given as a literal from Python.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import pydoc
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console import end_plainly
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from monai.bundle import ComponentLocator, ConfigWorkflow

#: Texts that mean a switch, which MONAI's command line does not make of them; any text counts as true.
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off"})
#: What a MONAI bundle may have without naming it.
_COMMON = frozenset({"bundle_root", "_meta_"})
#: What every component may have beside its arguments.
_OF_COMPONENTS = frozenset({"_target_", "_disabled_", "_requires_", "_mode_", "_desc_"})
#: What makes MONAI's parser evaluate, look up or change a text: `#` becomes `::`, and `@::` names a place.
_MARKS = re.compile(r"^[$@%]|#|[@%]::")
_SWITCH = "True or False, with a capital,"
_REMEDY = "The bundle's configuration lists its keys, with their values and what they mean, at its top."
_COMPONENT = "Put a component into a file that lies over the bundle's configuration."
_PATH_REMEDY = "Write a path as ./…; for a name with # use `tandem`, or a link without it."
_KINDS = {bool: _SWITCH, int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a mapping"}

_TYPES: dict[type, Any] = {str: (str, Path), list: (list, tuple), dict: Mapping}


def start() -> None:
    """The first step of every bundle: from now on wrong input ends it plainly, and so does what was typed wrongly.

    Raises:
        UsageError: E_OPTION, E_CONFIG.
    """
    end_plainly()
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == "monai.bundle.__main__":
        require_typed(sys.argv[1:])


def require_typed(words: Sequence[str]) -> None:
    """Refuse what does not fit in `python -m monai.bundle WORDS`.

    Args:
        words: such as `["run", "--config_file", "train.yaml", "--max_epochs", "3"]`.

    Raises:
        UsageError: E_OPTION for what was typed, E_CONFIG for what stands in a file that lies over another.
    """
    given = _typed(words)
    files = given.get("config_file") or ()
    files = [files] if isinstance(files, str) else list(files)
    named = frozenset(str(given[name]) for name in ("run_id", "init_id", "final_id") if name in given)
    added = _of_tracking(given.get("tracking"))
    own = {name: value for name, value in given.items() if name not in _of_monai()}
    for name, value in own.items():
        _require_plain(name, value, words)
    require_known(files, own, named | added)


def workflow(files: Sequence[Path], settings: Mapping[str, Any]) -> ConfigWorkflow:
    """A bundle's configurations with settings, as `python -m monai.bundle run` builds them.

    Args:
        files: of one bundle's `configs/`, the first directly in it; each lies over those before it.
        settings: keys and their values; no text among them is evaluated.

    Raises:
        UsageError: E_OPTION, E_CONFIG.
    """
    from monai.bundle import ConfigWorkflow

    require_known(files, settings)
    metadata = str(files[0].parent / "metadata.json")
    given = {name: as_value(value) for name, value in settings.items()}
    return ConfigWorkflow([str(path) for path in files], metadata, False, workflow_type=None, **given)


def as_value(value: Any) -> Any:
    """What MONAI's parser makes this very value of: a text that it would take for more becomes a quoted literal."""
    if isinstance(value, str):
        quoted = re.sub("[#@%]", lambda found: rf"\x{ord(found[0]):02x}", ascii(value))
        return f"${quoted}" if _MARKS.search(value) else value
    if isinstance(value, Mapping):
        return {name: as_value(item) for name, item in value.items()}
    return [as_value(item) for item in value] if isinstance(value, list | tuple) else value


def require_known(files: Sequence[str | Path], given: Mapping[str, Any], added: frozenset[str] = frozenset()) -> None:
    """Refuse keys that a bundle does not have, and values of another kind than its own.

    A file that lies over another may add a key, if something refers to it. What is given is a value, never an
    expression: `$@seed + 1` is a text.

    Args:
        files: the bundle's configuration, and those that lie over it in this order.
        given: key, such as `rate` or `network_def::width` -> value, over what the files say.
        added: further keys that may be given.

    Raises:
        UsageError: E_OPTION for `given`, E_CONFIG for a file; it names the key that may have been meant.
    """
    from monai.bundle import ConfigParser
    from monai.bundle.utils import merge_kv

    contents = [ConfigParser.load_config_file(str(path)) for path in files]
    used = {name for text in _texts(contents) for name in re.findall(r"[@%](\w+)", text)}
    parser, free = ConfigParser(contents[0]), _COMMON | added | used | {"finalize"}
    for path, content in zip(files[1:], contents[1:], strict=True):
        for key, value in content.items():
            for name, item in _merged(key, value):
                _Place(parser.config, free, "E_CONFIG", f" in {Path(path).name}").require(name, item)
            merge_kv(parser, key, value)
    for key in sorted(given, key=lambda name: not name.endswith("_target_")):
        _Place(parser.config, free, "E_OPTION", "").require(key, given[key])
        if _makes_component(given[key]):
            raise UsageError("E_OPTION", f"Expected a plain value for {key}, got {given[key]}.", _COMPONENT)
        if key.endswith("_target_"):  # another component, whose arguments are not looked up
            parser[key] = ""


def _merged(key: str, value: Any) -> list[tuple[str, Any]]:
    """What a key of a file sets: `+key` adds to what is there."""
    name = key.removeprefix("+")
    adds = name != key and isinstance(value, Mapping)
    return [(f"{name}::{part}", item) for part, item in value.items()] if adds else [(name, value)]


@dataclass(frozen=True)
class _Place:
    """Where keys are looked up: a configuration, the keys that may be added to it, and how a fault is told."""

    config: Any
    free: frozenset[str]
    code: str
    where: str

    def require(self, key: str, value: Any) -> None:
        """Refuse a key that is not there, or a value of another kind than the one that is there."""
        self._fit(key, self._own(key), value)

    def _own(self, key: str) -> Any:
        """The value that the configuration has for a key; None where it leaves open what it is."""
        here = self.config
        for depth, part in enumerate(parts := key.replace("#", "::").split("::")):
            if isinstance(here, list) and part.isdigit() and int(part) < len(here):
                here = here[int(part)]
            elif isinstance(here, Mapping) and part in here:
                here = here[part]
            elif depth == 0 and part in self.free:
                return None
            elif isinstance(here, Mapping) and _open_to(here, part):
                return _arguments(here).get(part) if depth == len(parts) - 1 else None
            else:
                raise self._unknown(key, part, here)
        refers = re.fullmatch(r"@(\w+)", here) if isinstance(here, str) else None  # such as `@seed`
        return self.config.get(refers[1], here) if refers else here

    def _unknown(self, key: str, part: str, here: Any) -> UsageError:
        names = [str(name) for name in (*here, *_arguments(here))] if isinstance(here, Mapping) else []
        near = difflib.get_close_matches(part, names, n=1)
        hint = f": did you mean {key.replace(part, near[0])}?" if near else "."
        return UsageError(self.code, f"Expected a key that the bundle has{self.where}, got {key}{hint}", _REMEDY)

    def _fit(self, key: str, own: Any, value: Any) -> None:
        wanted = "" if self.code == "E_CONFIG" and _is_expression(value) else _misses(own, value)
        if wanted:
            raise UsageError(self.code, f"Expected {wanted} for {key}{self.where}, got {value}.", _REMEDY)
        if isinstance(own, Mapping) and own and isinstance(value, Mapping) and not {"_target_"} & {*own, *value}:
            for name, item in value.items():
                self.require(f"{key}::{name}", item)


def _misses(own: Any, value: Any) -> str:
    """What should have been given; empty where the value fits."""
    if own is None:
        return ""
    if _is_expression(own) or (isinstance(own, Mapping) and "_target_" in own):
        return _SWITCH if isinstance(value, str) and value.lower() in _SWITCHES else ""
    kind = next(kind for kind in _KINDS if isinstance(own, (kind, tuple) if kind is list else kind))
    if not _is_of(kind, value):
        return _KINDS[kind]
    inside = {float if _is_of(float, item) else type(item) for item in own} if kind is list else set()
    wanted = inside.pop() if len(inside) == 1 else None
    if wanted in (float, str) and not all(_is_expression(item) or _is_of(wanted, item) for item in value):
        return f"a list, each {_KINDS[wanted]},"
    return ""


def _is_of(kind: type, value: Any) -> bool:
    if kind in (int, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (kind is float or float(value).is_integer())
    return isinstance(value, _TYPES.get(kind, kind))


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def _open_to(component: Mapping[str, Any], name: str) -> bool:
    """Whether a component may be given an argument that its configuration does not name."""
    known = _arguments(component)
    return "_target_" in component and (not known or name in _OF_COMPONENTS | known.keys())


def _arguments(component: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a component, with their defaults; none where they are not known."""
    from monai.bundle import ConfigComponent

    target = component.get("_target_")
    if not isinstance(target, str) or not target:
        return {}
    made = ConfigComponent({"_target_": target}, locator=_components()).resolve_module_name()
    made = pydoc.locate(made) if isinstance(made, str) else made
    parameters = inspect.signature(made).parameters if inspect.isroutine(made) or inspect.isclass(made) else {}
    if any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
        return {}
    defaults: dict[str, Any] = {name: item.default for name, item in parameters.items()}
    defaults = {name: None if own is inspect.Parameter.empty else own for name, own in defaults.items()}
    return {name: float(own) if _is_of(int, own) else own for name, own in defaults.items()}  # momentum=0: a number


@functools.cache
def _components() -> ComponentLocator:
    """Where MONAI finds the components that are named without their module."""
    from monai.bundle import ComponentLocator

    return ComponentLocator()


def _require_plain(key: str, value: Any, words: Sequence[str]) -> None:
    """Refuse a typed value that MONAI, or the library that reads its command line, takes for another than was typed.

    Raises:
        UsageError: E_OPTION.
    """
    texts = list(_texts(value))
    if bad := [text for text in texts if _MARKS.search(text)]:
        what = f"Expected a plain value for {key}, got {bad[0]}, which MONAI would evaluate or change."
        raise UsageError("E_OPTION", what, _PATH_REMEDY)
    word = _word_of(key, words)
    if isinstance(value, str) and word is not None and value not in (word, word.strip("'\"")):  # `(a)` is read as `a`
        raise UsageError("E_OPTION", f"Expected a plain value for {key}, got {word}.", _PATH_REMEDY)


def _word_of(key: str, words: Sequence[str]) -> str | None:
    """What was typed for a key, as `--key VALUE` or `--key=VALUE`."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name.replace("-", "_") == key:
            return value if equals else after
    return None


def _makes_component(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return (isinstance(value, Mapping) and "_target_" in value) or any(map(_makes_component, inside))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _typed(words: Sequence[str]) -> dict[str, Any]:
    """What MONAI is given by a command line: the library that reads it for MONAI reads it here; it takes literals."""
    import fire
    from monai import bundle
    from monai.bundle import ConfigParser

    found: dict[str, Any] = {}

    def heard(command: Callable[..., Any]) -> Callable[..., None]:
        @functools.wraps(command)
        def hear(*values: Any, **named: Any) -> None:
            arguments = inspect.signature(command).bind(*values, **named).arguments
            rest = [name for name in arguments if name in ("override", "kwargs")]
            typed = {key: value for name in rest for key, value in arguments.pop(name).items()}
            if left := [key for key, value in typed.items() if value is None]:
                raise UsageError("E_OPTION", f"Expected a value for {left[0]}, got None.", _REMEDY)
            found.update({name: value for name, value in arguments.items() if value is not None} | typed)

        return hear

    fire.Fire({name: heard(getattr(bundle, name)) for name in ("run", "run_workflow")}, command=list(words))
    kept = ConfigParser.load_config_file(str(found["args_file"])) if "args_file" in found else {}
    return {**kept, **found}


@functools.cache
def _of_monai() -> frozenset[str]:
    """The arguments of MONAI's own."""
    from monai.bundle import ConfigWorkflow, create_workflow, run

    takers = (run, create_workflow, ConfigWorkflow)
    return frozenset(name for taker in takers for name in inspect.signature(taker).parameters)


def _of_tracking(settings: Any) -> frozenset[str]:
    """The keys that MONAI adds to follow a run (`--tracking`)."""
    from monai.bundle import ConfigParser
    from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

    if settings is None:
        return frozenset()
    named = isinstance(settings, str) and settings in DEFAULT_EXP_MGMT_SETTINGS
    found = DEFAULT_EXP_MGMT_SETTINGS[settings] if named else ConfigParser.load_config_files(settings)
    return frozenset(found["configs"])
