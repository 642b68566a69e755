"""A fetch survives the process: chunks on the disk, whatever a power cut or a stranger has made of them."""

import errno
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BUNDLE, LAYOUT, announced, blob_of, contents_of, feed, installed, parameters

from edgeclient.link.mqtt import Link
from edgeclient.models.allegiance import SILENT_S
from edgeclient.models.follow import Follower
from edgeclient.models.incoming import Incoming
from edgeclient.models.slots import Model, Models
from edgeclient.wire import announcement, topics
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.errors import WireError

CHUNKS = [BUNDLE[i : i + 64] for i in range(0, len(BUNDLE), 64)]


def begun(folder: Path, *chunks: int) -> bytes:
    """The file after these chunks of the bundle."""
    incoming = Incoming(folder / "incoming")
    incoming.begin(announced(1), blob_of(BUNDLE))
    for chunk in chunks:
        incoming.add(chunk, CHUNKS[chunk])
    return (folder / "incoming").read_bytes()


def left(folder: Path) -> dict[int, bytes]:
    kept = Incoming(folder / "incoming").kept()
    return {} if kept is None else kept.parts


@pytest.mark.case("fleet 61")
def test_every_chunk_is_fetched_once_however_often_the_process_ends(tmp_path: Path) -> None:
    """One chunk a life, the bundle first, then the parameters."""
    fetched: list[tuple[str, int]] = []
    contents = contents_of(1)
    told = []
    for _ in range(len(CHUNKS) + 3):
        follower = Follower("t", Models(tmp_path))
        told.append(follower.progress)
        follower.announce(announced(1))
        assert follower.active is None
        digest, chunk = follower.wanted()[0]
        size = 16 if len(contents[digest]) == 4 * LAYOUT.size else 64
        follower.receive(digest, chunk, contents[digest][chunk * size : (chunk + 1) * size])
        fetched.append((digest, chunk))
    assert len(set(fetched)) == len(fetched)
    assert told[0] == ""
    assert told[2] == f"model 2 of {len(CHUNKS)} chunks, 0 of 2 kB"
    assert told[-1] == "version 1, 2 of 3 chunks, 0 of 0 kB"
    assert Follower("t", Models(tmp_path)).active is not None
    assert not (tmp_path / "incoming").exists()


@pytest.mark.case("fleet 61")
def test_a_bundle_brings_version_0(tmp_path: Path) -> None:
    zeros = bytes(4 * LAYOUT.size)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(0, content=zeros))
    assert feed(follower, contents_of()) == len(CHUNKS)
    assert follower.active is not None
    assert follower.active.parameters.tobytes() == zeros
    other = Follower("t", Models(tmp_path / "other"))
    other.announce(announced(0, content=parameters(7)))  # not what the bundle has
    assert feed(other, contents_of(7)) == len(CHUNKS) + 3


def test_before_it_is_announced_again_the_fetch_goes_on_and_quiet_hours_hold(tmp_path: Path) -> None:
    begun(tmp_path, 0, 1)
    follower = Follower("t", Models(tmp_path))
    assert follower.missing_bytes == len(BUNDLE) - 128
    assert follower.wanted()[0][1] == 2


def test_what_is_of_another_task_or_older_than_what_is_there_is_left(tmp_path: Path) -> None:
    begun(tmp_path, 0, 1)
    assert Follower("other", Models(tmp_path)).progress == ""
    installed(tmp_path).activate(announced(1), parameters(1))
    begun(tmp_path, 0, 1)
    assert Follower("t", Models(tmp_path)).progress == ""


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 2000), flip=st.integers(0, 2000), junk=st.binary(max_size=40))
def test_damage_costs_chunks_and_never_more(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = begun(folder, 0, 1, 2, 3)
    damaged = bytearray(whole[:cut] + junk)
    if flip < len(damaged):
        damaged[flip] ^= 0x41
    (folder / "incoming").write_bytes(damaged)
    found = left(folder)
    assert all(found[chunk] == CHUNKS[chunk] for chunk in found)
    if found:  # what comes now stands behind what is whole
        Incoming(folder / "incoming").add(5, CHUNKS[5])
        assert left(folder) == found | {5: CHUNKS[5]}


def test_chunks_that_are_no_such_content_are_all_asked_for_again(tmp_path: Path) -> None:
    """A stranger's chunk of the right size stays on the disk until the whole is checked."""
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    digest = blob_of(BUNDLE).digest
    follower.receive(digest, 0, bytes(64))
    follower = Follower("t", Models(tmp_path))
    for chunk in range(1, len(CHUNKS) - 1):
        follower.receive(digest, chunk, CHUNKS[chunk])
    with pytest.raises(WireError, match="digest"):
        follower.receive(digest, len(CHUNKS) - 1, CHUNKS[-1])
    assert left(tmp_path) == {}
    assert Follower("t", Models(tmp_path)).progress == ""
    follower.announce(announced(1))
    feed(follower, contents_of(1))
    assert follower.active is not None


def test_on_a_slow_link_a_version_is_finished_though_there_is_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    installed(tmp_path)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    first, second = announced(1).parameters.digest, announced(2).parameters.digest
    follower.receive(first, 0, parameters(1)[:16])
    again = Follower("t", Models(tmp_path))  # it was cut off: that is slow
    again.announce(announced(2))
    assert {digest for digest, _ in again.wanted()} == {first}
    again.receive(first, 1, parameters(1)[16:32])
    again.receive(first, 2, parameters(1)[32:])
    assert again.active is not None
    assert again.active.announcement.version == 1
    assert {digest for digest, _ in again.wanted()} == {second}
    again.receive(second, 0, parameters(2)[:16])
    now[0] += 31
    again.announce(announced(3))
    assert {digest for digest, _ in again.wanted()} == {second}
    again.announce(announced(13))  # what is trained from version 2 would be refused before long
    assert {digest for digest, _ in again.wanted()} == {announced(13).parameters.digest}
    again.receive(announced(13).parameters.digest, 0, parameters(13)[:16])
    now[0] += 61  # and no chunk has come since
    again.announce(announced(14))
    assert {digest for digest, _ in again.wanted()} == {announced(14).parameters.digest}


class Full(Models):
    """A disk on which no model has room, as long as it is `full`."""

    full = True

    def _look(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "no room")

    def install_bundle(self, digest: str, content: bytes) -> Path:
        self._look()
        return super().install_bundle(digest, content)

    def activate(self, announced: Announcement, content: bytes) -> Model:
        self._look()
        return super().activate(announced, content)


class Line:
    """A connection that keeps what was subscribed."""

    connected = True

    def __init__(self) -> None:
        self.asked: list[str] = []

    def subscribe(self, *wanted: str, **_: int) -> None:
        self.asked += wanted

    def unsubscribe(self, *unwanted: str) -> None:
        pass


def test_on_a_full_disk_a_whole_model_costs_its_last_chunk_and_no_more_room(tmp_path: Path) -> None:
    models, digest, last = Full(tmp_path), blob_of(BUNDLE).digest, len(CHUNKS) - 1
    follower = Follower("t", models)
    follower.announce(announced(1))
    for chunk, payload in enumerate(CHUNKS[:-1]):
        follower.receive(digest, chunk, payload)
    size = (tmp_path / "incoming").stat().st_size
    for _ in range(3):
        assert follower.wanted() == [(digest, last)]
        with pytest.raises(OSError, match="no room"):
            follower.receive(digest, last, CHUNKS[-1])
        assert (tmp_path / "incoming").stat().st_size == size
    models.full = False
    follower = Follower("t", models)
    follower.announce(announced(1))
    assert follower.wanted() == [(digest, last)]
    feed(follower, contents_of(1))
    assert follower.active is not None


def test_what_a_full_disk_kept_from_being_followed_is_heard_again(tmp_path: Path) -> None:
    """Nothing is left to fetch of version 0, and a task whose devices wait for it announces no other."""
    models, line = Full(tmp_path), Line()
    models.full = False
    models.install_bundle(blob_of(BUNDLE).digest, BUNDLE)
    models.full = True
    follower = Follower("t", models)
    said = announcement.encode(announced(0, content=bytes(4 * LAYOUT.size)))
    with pytest.raises(OSError, match="no room"):
        follower.hear(said)
    follower.ask(cast("Link", line), lambda *_: False)
    assert line.asked == []
    models.full = False
    follower.ask(cast("Link", line), lambda *_: True)
    follower.ask(cast("Link", line), lambda *_: True)
    assert line.asked == [topics.head("t")]
    follower.hear(said)
    assert follower.active is not None


def test_a_slow_fetch_of_another_ledger_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained from it would be taken for work on the successor's version of that number."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    installed(tmp_path)
    follower = Follower("t", Models(tmp_path))
    follower.announce(announced(1))
    follower.receive(announced(1).parameters.digest, 0, parameters(1)[:16])
    follower = Follower("t", Models(tmp_path))  # it was cut off: that is slow
    follower.announce(announced(1))
    successor = announced(2, ledger="ab" * 8, succeeds=("1e" * 8,))
    follower.announce(successor)
    now[0] += SILENT_S
    follower.ask(cast("Link", Line()), lambda *_: True)
    assert {digest for digest, _ in follower.wanted()} == {successor.parameters.digest}


def test_work_is_of_the_ledger_whose_version_it_is_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    follower = Follower("t", installed(tmp_path))
    follower.announce(announced(1))
    feed(follower, contents_of(1))
    follower.announce(announced(0, ledger="ab" * 8, succeeds=("1e" * 8,), content=parameters(5)))
    now[0] += SILENT_S
    follower.ask(cast("Link", Line()), lambda *_: True)
    assert follower.allegiance.ledger == "ab" * 8
    assert follower.active is not None
    assert follower.active.owner("pi") == ("t", "pi", "1e" * 8)
    feed(follower, contents_of(5))
    assert follower.active.owner("pi") == ("t", "pi", "ab" * 8)
