"""Terminals, configurations and accounts as they come: what cannot be shown or read is one line, never a traceback."""

import ast
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console

from edgeclient.logs import terminal
from edgeclient.wire.status import Status

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = 'device = "pi-7"\r\ntask = "har"\r\n\tdirectory = "state"\r\n[data]\r\nsource = "Größe.npz"\r\n'
GAIN: Final = {"num_examples": 5, "version": 2, "loss_before": 0.5, "loss_after": 0.25}
STATUS: Final = json.dumps({**asdict(Status("online", "s", note="trains", version=3, rounds=4)), "gain": GAIN})


def called(module: str, *arguments: str | Path, folder: Path, **environment: str) -> tuple[int, str, str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=100, env=env)
    said, wrong = (each.decode("latin-1") for each in (done.stdout, done.stderr))
    assert "Traceback" not in wrong, wrong
    assert "Error" not in wrong, wrong
    return done.returncode, said, wrong


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "device.toml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status.json").write_text(STATUS)
    return tmp_path


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine that was set up long ago."""
    made = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", made / "de_DE"], check=False, capture_output=True)
    return {"LC_ALL": "de_DE", "LOCPATH": str(made), "PYTHONUTF8": "0"} if (made / "de_DE").exists() else {}


@pytest.mark.case("fleet 20")
@pytest.mark.parametrize("of_machine", [False, True], ids=["PYTHONIOENCODING", "locale"])
def test_a_terminal_that_lacks_characters_is_shown_others(
    folder: Path, latin_1: dict[str, str], *, of_machine: bool
) -> None:
    environment = latin_1 if of_machine else {"PYTHONIOENCODING": "latin-1"}
    if not environment:
        pytest.skip("localedef knows no de_DE: the other way of a Latin-1 terminal is tried")
    code, said, _ = called("edgeclient.cli", "status", "device.toml", folder=folder, **environment)
    assert (code, "0.5000 -> 0.2500 by the round from 2" in said) == (0, True)
    code, said, _ = called("broker.cli", "task", "add", "--help", folder=folder, **environment)
    assert (code, "..." in said) == (0, True)
    typed = os.fsdecode(b"gr\xf6\xdfe.npz") if of_machine else "größe.npz"
    joining = ("join", "mqtt://h/har", "--out", "new.toml", "--data", typed)
    assert called("edgeclient.cli", *joining, folder=folder, **environment)[0] == 0
    assert "größe.npz" in (folder / "new.toml").read_text(encoding="utf-8")
    if not of_machine:
        code, said, wrong = called("edgeclient.cli", "doctor", "device.toml", folder=folder, **environment)
        assert (code, "Größe.npz" in said) == (1, True), wrong


@pytest.mark.case("fleet 20")
def test_a_terminal_of_ascii_gets_ascii(folder: Path) -> None:
    code, said, _ = called("broker.cli", "task", "add", "--help", folder=folder, PYTHONIOENCODING="ascii")
    assert (code, said.isascii(), "policy ..." in said) == (0, True, True)


def test_names_of_files_that_are_no_text_are_shown_too(folder: Path) -> None:
    name = os.fsdecode(b"gr\xf6\xdfe.toml")
    code, _, wrong = called("edgeclient.cli", "status", name, folder=folder, PYTHONIOENCODING="utf-8")
    assert (code, wrong) == (1, "edgeclient: gr??e.toml: No such file or directory\n")
    code, _, wrong = called("edgeclient.cli", "join", "mqtt://h/har", "--data", name, folder=folder)
    assert (code, len(wrong.splitlines())) == (1, 1)
    assert "cannot stand in a configuration, which is UTF-8" in wrong


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
def test_what_draws_itself_takes_the_same_way(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    terminal.adapt()
    Console(force_terminal=True, width=60).print("loss 0.5 → 0.25 … ▁▂▃█ ½ °C ✕ 你好")
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert "->" in out.buffer.getvalue().decode(encoding)


@pytest.mark.case("fleet 26")
@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"\xef\xbb\xbf" + CONFIG.encode(), ""),  # as Notepad saves it
        (CONFIG.encode("utf-16"), "it is UTF-16: save it as UTF-8"),
        (CONFIG.encode("utf-16-be"), "it is UTF-16: save it as UTF-8"),
        (CONFIG.encode("latin-1"), "line 5 is not UTF-8, but likely Latin-1 (Windows-1252): save it as UTF-8"),
        (bytes(4096), "it holds zeros alone, as after a power cut: write it again"),
    ],
    ids=["BOM, CRLF and tabs", "UTF-16", "UTF-16 without BOM", "Latin-1", "zeros"],
)
def test_a_configuration_in_another_encoding_is_read_or_named(folder: Path, content: bytes, wrong: str) -> None:
    (folder / "other.toml").write_bytes(content)
    code, said, told = called("edgeclient.cli", "status", "other.toml", folder=folder)
    if wrong:
        assert (code, told) == (1, f"edgeclient: other.toml: not valid TOML: {wrong}\n")
    else:
        assert (code, said[:5]) == (0, "pi-7:")


@pytest.mark.parametrize("package", ["edgeclient", "broker"])
def test_no_file_is_read_in_the_encoding_of_the_locale(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
                continue
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            text = name == "open" and any(mode and set(mode) <= set("rwax+t") for mode in modes[-1:])
            assert not text, f"{path}:{call.lineno} gives no encoding"
            assert name not in {"read_text", "write_text"}, f"{path}:{call.lineno} gives no encoding"
