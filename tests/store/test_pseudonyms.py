from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.store.pseudonyms import Pseudonyms, private_folder


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


def test_a_private_table_gives_back_the_bytes_of_a_name(tmp_path: Path) -> None:
    """In Latin-1, as a zip of Windows leaves it; the table itself is UTF-8 text. The output folder may be called so."""
    latin, utf = os.fsdecode(b"/in/M\xfcller\n,1"), "/in/Müller"
    names = Pseudonyms(tmp_path / os.fsdecode(b"\xfc"), tmp_path / "home")
    path = names.keep("t.csv", ("path",), [(latin,), (utf,)])
    assert names.kept("t.csv") == [{"path": latin}, {"path": utf}]
    assert r"/in/M\udcfcller" in path.read_text(encoding="utf-8")


def test_a_run_folder_remembers_its_key(tmp_path: Path) -> None:
    """With another key each patient would be a second case, and nobody would know."""
    one, two = (Pseudonyms(tmp_path / "out", tmp_path / key) for key in ("one", "two"))
    one.hold(tmp_path / "out")
    one.hold(tmp_path / "out")
    with pytest.raises(UsageError, match=r"E_KEY: The cases of .*out.* another pseudonym key than that in .*/two\."):
        two.hold(tmp_path / "out")
    assert (tmp_path / "out" / ".key").read_text() == one.of("key")


def test_a_user_without_a_home_is_told_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}[0])
    with pytest.raises(UsageError, match=r"^E_KEY: .* has none\. Set TANDEM_HOME"):
        private_folder()


def test_a_user_without_a_name_gets_one_before_libraries_ask() -> None:
    """MONAI asks when it is imported; in a container that runs under any number nobody answers."""
    code = "import pwd; pwd.getpwuid = lambda _: {}[0]; import pipeline, getpass; print(getpass.getuser())"
    given = {key: value for key, value in os.environ.items() if key not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
    found = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(os.getuid())


def test_a_disk_without_hard_links_takes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", unknown)
    first, second = (Pseudonyms(tmp_path / "out", tmp_path / "home").of("case", "P1") for _ in range(2))
    assert first == second
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["key"]
    assert stat.S_IMODE((tmp_path / "home" / "key").stat().st_mode) == 0o600
