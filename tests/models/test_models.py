"""Models on the device: chunks are verified, a version is whole or not there, and a kill leaves the old one active."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BUNDLE, LAYOUT, announced, blob_of, contents_of, feed, installed, parameters

from edgeclient.bundle import archive
from edgeclient.failpoint import VARIABLE
from edgeclient.models.fetch import AT_A_TIME, Fetch
from edgeclient.models.follow import Follower
from edgeclient.models.slots import Models
from edgeclient.wire.announcement import Blob
from edgeclient.wire.errors import WireError

# Fetch


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(1, 60), st.randoms(use_true_random=False))
def test_chunks_in_any_order_and_twice(content: bytes, chunk: int, random: Any) -> None:
    fetch = Fetch(blob_of(content, chunk))
    pieces = [content[i : i + chunk] for i in range(0, len(content), chunk)]
    assert fetch.blob.chunks == len(pieces)
    done, received = None, set[int]()
    while done is None:
        wanted = fetch.wanted()
        assert 0 < len(wanted) <= AT_A_TIME
        assert wanted == [i for i in range(len(pieces)) if i not in received][:AT_A_TIME]
        one = random.choice([*wanted, *received])
        done = fetch.receive(one, pieces[one])
        received.add(one)
    assert done == content


@pytest.mark.parametrize(
    ("chunk", "payload"),
    [(-1, b"ab"), (2, b"ab"), (10**9, b""), (0, b""), (0, b"a"), (0, b"abc"), (1, b"cd"), (1, b"")],
)
def test_chunks_that_cannot_be_are_refused_and_forgotten(chunk: int, payload: bytes) -> None:
    fetch = Fetch(blob_of(b"abc", 2))
    with pytest.raises(WireError, match="range"):
        fetch.receive(chunk, payload)
    assert fetch.wanted() == [0, 1]
    assert fetch.receive(0, b"ab") is None
    assert fetch.receive(1, b"c") == b"abc"


def test_a_wrong_digest_begins_again() -> None:
    fetch = Fetch(blob_of(b"abc", 2))
    fetch.receive(0, b"ax")
    with pytest.raises(WireError, match="digest"):
        fetch.receive(1, b"c")
    assert fetch.wanted() == [0, 1]
    fetch.receive(0, b"ab")
    assert fetch.receive(1, b"c") == b"abc"


def test_a_huge_blob_asks_for_a_few_chunks_without_counting_them_all() -> None:
    assert Fetch(Blob("ab" * 32, 1 << 42, 1)).wanted() == list(range(AT_A_TIME))


def test_bytes_that_have_come_are_not_missing() -> None:
    fetch = Fetch(Blob(sha256(b"abc").hexdigest(), 3, 2))
    assert fetch.missing_bytes == 3
    fetch.receive(0, b"ab")
    fetch.receive(0, b"ab")
    assert fetch.missing_bytes == 1


# Slots


def active_version(folder: Path) -> int | None:
    model = Models(folder).active()
    if model is None:
        return None
    assert model.parameters.dtype == np.float32
    assert model.parameters.tolist() == [model.announcement.version] * LAYOUT.size
    return model.announcement.version


def test_activation_survives_a_restart(tmp_path: Path) -> None:
    models = installed(tmp_path)
    assert models.active() is None
    for version in (1, 2, 3):
        made = models.activate(announced(version), parameters(version))
        assert made.announcement == announced(version)
        assert active_version(tmp_path) == version
    again = Models(tmp_path).active()
    assert again is not None
    assert again.announcement == announced(3)
    assert (again.bundle_directory / "training.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize("damage", ["flip", "shorten", "parameters", "announcement", "pointer", "bundle"])
def test_a_damaged_active_slot_is_noticed(tmp_path: Path, damage: str) -> None:
    models = installed(tmp_path)
    models.activate(announced(1), parameters(1))
    slot = tmp_path / f"slot.{(tmp_path / 'active').read_text()}"
    content = slot / "parameters.f32"
    if damage == "flip":
        content.write_bytes(b"\x01" + content.read_bytes()[1:])
    elif damage == "shorten":
        content.write_bytes(content.read_bytes()[:-1])
    elif damage == "parameters":
        content.unlink()
    elif damage == "announcement":
        (slot / "announcement.json").write_bytes(b"{")
    elif damage == "pointer":
        (tmp_path / "active").write_bytes(b"\xff")
    else:
        shutil.rmtree(tmp_path / "bundles")
        (tmp_path / "bundles").mkdir()
    assert Models(tmp_path).active() is None
    if damage != "pointer":
        installed(tmp_path).activate(announced(2), parameters(2))
        assert active_version(tmp_path) == 2


def test_a_damaged_pointer_does_not_stand_in_the_way(tmp_path: Path) -> None:
    models = installed(tmp_path)
    models.activate(announced(1), parameters(1))
    (tmp_path / "active").write_bytes(b"\xff")
    models.activate(announced(2), parameters(2))
    assert active_version(tmp_path) == 2


def test_parameters_that_are_no_numbers_stay_inactive(tmp_path: Path) -> None:
    models = installed(tmp_path)
    models.activate(announced(1), parameters(1))
    bad = np.full(LAYOUT.size, np.nan, "<f4").tobytes()
    with pytest.raises(WireError, match="value"):
        models.activate(announced(2, content=bad), bad)
    assert active_version(tmp_path) == 1


@pytest.mark.parametrize("fields", [{"layout": "ef" * 32}, {"size": 10}])
def test_a_bundle_of_another_layout_stays_inactive(tmp_path: Path, fields: dict[str, Any]) -> None:
    models = installed(tmp_path)
    with pytest.raises(WireError, match="layout"):
        models.activate(announced(1, **fields), parameters(1))
    assert models.active() is None


def test_a_bundle_that_is_none_leaves_nothing(tmp_path: Path) -> None:
    models = Models(tmp_path)
    for content in (b"", b"junk", BUNDLE[:-1], BUNDLE[: len(BUNDLE) // 2]):
        with pytest.raises(WireError):
            models.install_bundle("ab" * 32, content)
        assert models.bundle("ab" * 32) is None


# Following


def test_the_bundle_is_fetched_once_and_versions_only_rise(tmp_path: Path) -> None:
    follower = Follower("t", Models(tmp_path))
    assert follower.wanted() == []
    follower.announce(announced(1))
    first = feed(follower, contents_of(1))
    assert first == blob_of(BUNDLE).chunks + 3
    assert follower.active is not None
    assert follower.active.announcement.version == 1
    follower.announce(announced(2))
    assert feed(follower, contents_of(2)) == 3
    follower.announce(announced(1))
    assert follower.wanted() == []
    assert follower.active.announcement.version == 2
    again = Follower("t", Models(tmp_path))
    again.announce(announced(2))
    assert again.wanted() == []
    assert active_version(tmp_path) == 2


def test_a_version_with_the_active_parameters_again_needs_no_fetch(tmp_path: Path) -> None:
    """What follows a version that is held back."""
    installed(tmp_path)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    feed(follower, contents_of(1))
    follower.announce(replace(announced(1), version=3))
    assert follower.wanted() == []
    assert follower.active is not None
    assert follower.active.announcement.version == 3
    again = Models(tmp_path).active()
    assert again is not None
    assert (again.announcement.version, again.parameters.tolist()) == (3, [1.0] * LAYOUT.size)


def test_a_newer_version_takes_over_a_fetch_under_way(tmp_path: Path) -> None:
    installed(tmp_path)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    follower.receive(announced(1).parameters.digest, 0, parameters(1)[:16])
    follower.announce(announced(2))
    assert follower.receive(announced(1).parameters.digest, 1, parameters(1)[16:32]) is None
    feed(follower, contents_of(2))
    assert active_version(tmp_path) == 2


def test_wrong_content_is_asked_for_again(tmp_path: Path) -> None:
    installed(tmp_path)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    digest = announced(1).parameters.digest
    follower.receive(digest, 0, b"x" * 16)
    follower.receive(digest, 1, parameters(1)[16:32])
    with pytest.raises(WireError, match="digest"):
        follower.receive(digest, 2, parameters(1)[32:])
    assert follower.active is None
    feed(follower, contents_of(1))
    assert active_version(tmp_path) == 1


# Kills

CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_models import BUNDLE, announced, parameters
from hashlib import sha256
from edgeclient.models.slots import Models

models = Models(Path(sys.argv[1]))
digest = sha256(BUNDLE).hexdigest()
if models.bundle(digest) is None:
    models.install_bundle(digest, BUNDLE)
for version in (1, 2, 3):
    models.activate(announced(version), parameters(version))
    print(version, flush=True)
"""
KILLS = [f"{point}=kill@{nth}" for point in ("models.before-slot", "models.before-switch") for nth in (1, 2, 3)]
# Every file is replaced whole: three or more of the bundle, then parameters, announcement and pointer per version.
KILLS += [f"files.before-rename=kill@{nth}" for nth in range(1, 13)]


def run_child(folder: Path, failpoints: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: failpoints}
    command = [sys.executable, "-c", CHILD, str(folder), str(Path(tiny_models.__file__).parent)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kill", KILLS)
def test_killed_anywhere_the_last_activated_version_is_active(tmp_path: Path, kill: str) -> None:
    child = run_child(tmp_path, kill)
    assert child.returncode == -signal.SIGKILL, child.stderr
    told = [int(line) for line in child.stdout.split()]
    assert active_version(tmp_path) == (told[-1] if told else None)
    directory = Models(tmp_path).bundle(sha256(BUNDLE).hexdigest())
    if directory is not None:
        assert sorted(path.name for path in directory.iterdir()) == sorted(archive.decode(BUNDLE).files)
    installed(tmp_path).activate(announced(9), parameters(9))
    assert active_version(tmp_path) == 9
