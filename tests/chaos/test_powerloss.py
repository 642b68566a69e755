import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.chaos import oplog, powerloss
from tools.chaos.disk import Disk, lay_out
from tools.chaos.oplog import ROOT, Link, Operation, Reader, Resize, Sync, UnknownOperation, Unlink, Write

# In CI a missing program is a failure, not a gap.
traced = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: tools/test")
SEEDS = range(200)


def survivors(*operations: Operation) -> set[tuple[tuple[str, bytes | None], ...]]:
    disk = Disk()
    for each in operations:
        disk.apply(each)
    return {tuple(sorted(disk.survivor(random.Random(seed)).items())) for seed in SEEDS}


def test_what_was_synced_is_always_there() -> None:
    made: list[Operation] = [Link(ROOT, "a", 1, is_folder=False), Write(1, 0, b"old"), Sync(1), Sync(ROOT)]
    assert survivors(*made) == {(("a", b"old"),)}


def test_an_unsynced_write_is_there_or_not_page_by_page_and_sector_by_sector() -> None:
    old, new = bytes(8192), b"\1" * 8192
    made: list[Operation] = [
        Link(ROOT, "a", 1, is_folder=False),
        Write(1, 0, old),
        Sync(1),
        Sync(ROOT),
        Write(1, 0, new),
    ]
    found = {content for ((_, content),) in survivors(*made) if content is not None}
    assert {old, new, old[:4096] + new[4096:], new[:4096] + old[4096:]} < found
    sectors = {content[at : at + 512] for content in found for at in range(0, 8192, 512)}
    assert sectors == {old[:512], new[:512]}
    assert any(len({content[at : at + 512] for at in range(0, 4096, 512)}) == 2 for content in found)


def test_a_synced_file_is_gone_when_its_folder_was_not_synced() -> None:
    made: list[Operation] = [Link(ROOT, "a", 1, is_folder=False), Write(1, 0, b"x"), Sync(1)]
    assert survivors(*made) == {(), (("a", b"x"),)}
    folder: list[Operation] = [Link(ROOT, "d", 1, is_folder=True), Link(1, "a", 2, is_folder=False)]
    inside = [*folder, Write(2, 0, b"x"), Sync(2), Sync(1)]
    assert survivors(*inside) == {(), (("d", None), ("d/a", b"x"))}


def test_a_rename_is_whole_and_names_survive_in_order() -> None:
    made: list[Operation] = [
        Link(ROOT, "a", 1, is_folder=False), Link(ROOT, "b", 2, is_folder=False),
        Write(1, 0, b"1"), Write(2, 0, b"2"), Sync(1), Sync(2), Sync(ROOT),
        Link(ROOT, "a", 2, is_folder=False, gone="b"), Unlink(ROOT, "a"),
    ]  # fmt: skip
    assert survivors(*made) == {(("a", b"1"), ("b", b"2")), (("a", b"2"),), ()}


def test_a_size_is_pending_like_a_write() -> None:
    made: list[Operation] = [
        Link(ROOT, "a", 1, is_folder=False),
        Write(1, 0, b"abc"),
        Sync(1),
        Sync(ROOT),
        Resize(1, 1),
    ]
    assert survivors(*made) == {(("a", b"abc"),), (("a", b"a"),)}
    grown: list[Operation] = [*made[:-1], Resize(1, 5, at_least=True), Resize(1, 4, at_least=True), Sync(1)]
    assert survivors(*grown) == {(("a", b"abc\0\0"),)}


def test_survivors_become_real_files(tmp_path: Path) -> None:
    lay_out({"d": None, "d/a": b"x", "b": b""}, tmp_path)
    assert (tmp_path / "d" / "a").read_bytes() == b"x"
    assert (tmp_path / "b").read_bytes() == b""


WORK = """
import mmap, os, pathlib, sys
root, marks = pathlib.Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
(root / "d").mkdir()
path = root / "d" / "a, b"
with path.open("wb") as file:
    file.write(bytes(5000)); file.flush(); os.fsync(file.fileno())
    os.pwrite(file.fileno(), b"xy", 3); os.writev(file.fileno(), [b"p", b"q"]); os.truncate(path, 4999)
with path.open("r+b") as file:
    file.seek(10); file.write(b"z"); file.flush()
    room = mmap.mmap(file.fileno(), 4096)
    os.write(marks, b'{"map": "d/a, b", "copy": "%s"}\\n' % sys.argv[3].encode())
    room[0:4096] = open(sys.argv[3], "rb").read(); room.flush(); os.posix_fallocate(file.fileno(), 0, 6000)
path.rename(root / "d" / "c")
folder = os.open(root / "d", os.O_RDONLY); os.fsync(folder)
os.unlink("c", dir_fd=folder)
os.write(marks, b'{"done": 1}\\n')
"""


@traced
def test_a_trace_is_read_as_what_the_process_did(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    copy = tmp_path / "copy"
    copy.write_bytes(b"\7" * 4096)
    arguments = [str(root), str(tmp_path / "marks"), str(copy)]
    subprocess.run(
        [*oplog.STRACE, "-o", str(tmp_path / "trace"), sys.executable, "-c", WORK, *arguments],
        check=True, capture_output=True,
    )  # fmt: skip
    with (tmp_path / "trace").open() as lines:
        operations = list(Reader(root, tmp_path / "marks").read(lines))
    assert operations == [
        Link(ROOT, "d", 1, is_folder=True),
        Link(1, "a, b", 2, is_folder=False),
        Write(2, 0, bytes(5000)),
        Sync(2),
        Write(2, 3, b"xy"),
        Write(2, 5000, b"pq"),
        Resize(2, 4999),
        Write(2, 10, b"z"),
        Write(2, 0, b"\7" * 4096),
        Sync(2),
        Resize(2, 6000, at_least=True),
        Link(1, "c", 2, is_folder=False, gone="a, b"),
        Sync(1),
        Unlink(1, "c"),
        oplog.Mark({"done": 1}),
    ]


def test_what_the_model_does_not_know_is_refused() -> None:
    hexed = "".join(f"\\x{byte:02x}" for byte in b"/r/a")
    with pytest.raises(UnknownOperation, match="link in the traced folder"):
        list(Reader(Path("/r"), Path("/marks")).read([f'link("{hexed}", "{hexed}") = 0']))


@traced
def test_everything_promised_survives_a_power_cut() -> None:
    told = powerloss.run(seed=1, cuts=40, sabotage=None, say=print)
    assert told["found"] == []
    assert (told["lost"], told["doubled"], told["damaged"], told["law_holds"]) == (0, 0, 0, True)
    assert told["kills"] == 40
    assert powerloss.holds(told)


@traced
@pytest.mark.parametrize("sabotage", powerloss.SABOTAGE)
def test_a_missing_fsync_is_noticed(sabotage: str) -> None:
    told = powerloss.run(seed=1, cuts=40, sabotage=sabotage, say=print)
    assert told["damaged"] + told["lost"] > 0
    assert not powerloss.holds(told)
