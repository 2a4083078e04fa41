from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store.pseudonyms import Pseudonyms


def test_another_key_gives_other_names(tmp_path: Path) -> None:
    names = [Pseudonyms(tmp_path / "out", tmp_path / key).of("case", "P1") for key in ("one", "two")]
    assert names[0] != names[1]
    assert Pseudonyms(tmp_path / "out", tmp_path / "one").of("case", "P1") == names[0]
    assert Pseudonyms(tmp_path / "out", tmp_path / "one").of("case", "P", "1") != names[0]


def test_the_key_is_guarded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E_KEY.*lies in the output folder"):
        Pseudonyms(tmp_path, tmp_path / "out" / "keys")
    Pseudonyms(tmp_path / "out", tmp_path / "home")
    (tmp_path / "home" / "key").chmod(0o644)
    with pytest.raises(UsageError, match=r"E_KEY.*0600"):
        Pseudonyms(tmp_path / "out", tmp_path / "home")
    (tmp_path / "home" / "key").chmod(0o600)
    (tmp_path / "home" / "key").write_bytes(b"short")
    with pytest.raises(UsageError, match=r"E_KEY.*5 bytes"):
        Pseudonyms(tmp_path / "out", tmp_path / "home")
