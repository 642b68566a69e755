"""Content-addressed files: written once, whole or not at all, verified at every reading."""

import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from broker.registry.blobs import Blobs, RegistryError
from edgeclient.failpoint import VARIABLE


def test_what_is_put_can_be_got(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "deep" / "registry")
    for content in (b"", b"abc", bytes(1_000_000)):
        digest = blobs.put(content)
        assert digest == sha256(content).hexdigest()
        assert blobs.get(digest) == content
        assert blobs.put(content) == digest
    assert Blobs(tmp_path / "deep" / "registry").get(sha256(b"abc").hexdigest()) == b"abc"


def test_missing_and_damaged_contents_are_named(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    with pytest.raises(RegistryError, match="restore it from a backup"):
        blobs.get("ab" * 32)
    digest = blobs.put(b"abc")
    blobs.path(digest).write_bytes(b"abd")
    with pytest.raises(RegistryError, match=f"{digest} is damaged"):
        blobs.get(digest)


def test_contents_can_be_removed_twice(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    digest = blobs.put(b"abc")
    blobs.remove(digest)
    blobs.remove(digest)
    assert list(tmp_path.iterdir()) == []


def test_killed_before_the_rename_nothing_is_there(tmp_path: Path) -> None:
    code = "import sys, pathlib, broker.registry.blobs as b; b.Blobs(pathlib.Path(sys.argv[1])).put(b'abc')"
    environment = {**os.environ, VARIABLE: "files.before-rename=kill"}
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    blobs = Blobs(tmp_path)
    digest = sha256(b"abc").hexdigest()
    with pytest.raises(RegistryError):
        blobs.get(digest)
    assert blobs.get(blobs.put(b"abc")) == b"abc"
    assert [path.name for path in tmp_path.iterdir()] == [digest]
