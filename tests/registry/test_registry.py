"""Content-addressed files: written once, whole or not at all, verified at every reading."""

import os
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.registry.blobs import POINTS, Blobs, RegistryError, RegistryUnavailable
from broker.registry.retention import kept, outdated
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


CHILD = """
import pathlib, sys
from broker.registry.blobs import Blobs
blobs = Blobs(pathlib.Path(sys.argv[1]))
blobs.remove(blobs.put(b"abc"))
"""


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_a_content_is_there_or_not(tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.run(command, env={**os.environ, VARIABLE: f"{point}=kill"}, check=False)
    assert child.returncode == -signal.SIGKILL
    there = point in {"registry.after-put", "registry.before-remove"}
    assert [path.name for path in tmp_path.iterdir()] == [sha256(b"abc").hexdigest()] * there


FULL = """
import pathlib, resource, sys
from broker.registry.blobs import Blobs, RegistryUnavailable
blobs = Blobs(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    blobs.put(bytes(5000))
except RegistryUnavailable as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(len(blobs.get(blobs.put(bytes(5000)))))
"""


def test_without_room_nothing_is_left_and_later_it_works(tmp_path: Path) -> None:
    """The kernel refuses to write on, as on a full disk."""
    child = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    refused, written = child.stdout.splitlines()
    assert "cannot be written: File too large" in refused
    assert written == "5000"
    assert [path.name for path in tmp_path.iterdir()] == [sha256(bytes(5000)).hexdigest()]
    assert issubclass(RegistryUnavailable, RegistryError)


def test_strays_are_what_nothing_names_for_an_hour(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    named, young, old = (blobs.put(content) for content in (b"named", b"young", b"old"))
    half = tmp_path / f"{'ab' * 32}.new"
    other = tmp_path / "README"
    half.write_bytes(b"a part")
    other.write_bytes(b"of a person")
    for path in (blobs.path(named), blobs.path(old), half, other):
        os.utime(path, (1.0, 1.0))
    assert blobs.size() == (4, len(b"named" + b"young" + b"old" + b"a part"))
    blobs.remove_strays({named})
    assert {path.name for path in tmp_path.iterdir()} == {named, young, "README"}


def test_old_versions_thin_out() -> None:
    there: list[tuple[int, str]] = []
    for number in range(301):
        there.append((number, f"{number}"))
        gone = outdated(there, 10, wanted={f"{number - k}" for k in range(3)})
        there = [each for each in there if each[0] not in gone]
    numbers = [number for number, _ in there]
    assert numbers[-10:] == list(range(291, 301))
    assert len(numbers) <= 10 * (1 + 5)
    assert numbers[0] == 0
    assert 9 in outdated([(number, "") for number in range(30)], 3, wanted=set())
    assert 9 not in outdated([(number, f"{number}") for number in range(30)], 3, wanted={"9"})
    assert len(outdated([(number, "") for number in range(1000)], 3, wanted=set())) == 64


@given(st.integers(0, 5000), st.integers(1, 60), st.integers(0, 500))
def test_what_has_gone_is_never_wanted_again(number: int, keep: int, later: int) -> None:
    newest = number + later
    if not kept(number, newest, keep):
        assert not any(kept(number, newest + more, keep) for more in range(200))
