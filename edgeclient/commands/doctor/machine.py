"""The board: what it tells about itself, memory, clock, and the disk under a folder."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import edgeclient
from edgeclient.commands.doctor.findings import Finding
from edgeclient.conditions.board import Board, Observed
from edgeclient.conditions.guard import Guard
from edgeclient.conditions.reasons import Decision, Queue, Wait
from edgeclient.settings import Conditions, Device

# A small model's training session takes 95 MiB.
_MEMORY_BYTES: Final = 128 << 20
_FULL_BYTES: Final = 50 << 20
_NEARLY_FULL_BYTES: Final = 500 << 20
# A round syncs about five times, and waits for each.
_SLOW_SYNC_MS: Final = 200.0
_SLOW_MB_S: Final = 2.0
_VOLATILE: Final = frozenset({"tmpfs", "ramfs", "overlay"})
# Reasons that every preset has.
_EAGER: Final = frozenset({"paused", "quiet-hours", "battery", "heat", "throttled", "disk", "wear"})
_RELEASED: Final = datetime(2025, 1, 1, tzinfo=UTC)


def conditions() -> Iterator[Finding]:
    """Which conditions the board tells, and how they are now."""
    asked = Board()
    yield judge_conditions(asked.observe())
    for name in sorted(asked.hanging):
        what = f"{name} hangs: what it would tell counts as unknown"
        yield Finding("warn", "conditions", what, f"see why {name} does not answer, or remove it")


def granted(settings: Device) -> Iterator[Finding]:
    """Whether a round would begin now, by the same rules as `run` has."""
    guard = Guard(settings.conditions, settings.directory)
    guard.look()
    yield judge_grant(guard.decide(Queue(new_version=True), link_up=True), settings.conditions)


def judge_grant(decision: Decision, rules: Conditions) -> Finding:
    """What the owner's conditions make of this moment."""
    if not isinstance(decision, Wait):
        return Finding("ok", "conditions now", f"training would begin: preset {rules.preset}")
    eager = decision.doing not in _EAGER and rules.preset != "eager"
    advice = 'preset = "eager" in [conditions] cares for power and heat alone; ' if eager else ""
    return Finding("warn", "conditions now", decision.because, f"{advice}it goes on by itself when that has passed")


def judge_conditions(observed: Observed) -> Finding:
    """What is unknown counts as good; a board that tells nothing cannot be spared."""
    told = {name: value for name, value in asdict(observed).items() if value is not None}
    silent = [name for name in asdict(observed) if name not in told]
    what = ", ".join(f"{name} {_said(name, value)}" for name, value in told.items())
    what += f"; not told: {', '.join(silent)}" if silent else ""
    if observed.load_per_core is None and observed.pressure is None:
        return Finding("warn", "conditions", what, "training cannot wait for a busy board: see that /proc is mounted")
    return Finding("ok", "conditions", what)


def memory() -> Iterator[Finding]:
    """Memory that is there and that is free."""
    yield judge_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), Board().observe().free_bytes)


def judge_memory(total: int, free: int | None) -> Finding:
    """Both in bytes; None where the board does not tell."""
    what = f"{'unknown' if free is None else _size(free)} free of {_size(total)}"
    if free is not None and free < _MEMORY_BYTES:
        return Finding("warn", "memory", what, "stop other programs, or use a smaller model or [training] max_batch")
    return Finding("ok", "memory", what)


def clock() -> Iterator[Finding]:
    """The time, and whether somebody sets it."""
    installed = datetime.fromtimestamp(Path(edgeclient.__file__).stat().st_mtime, UTC)
    yield judge_clock(datetime.now(UTC), max(installed, _RELEASED), _synchronised())


def judge_clock(now: datetime, installed: datetime, synchronised: bool | None) -> Finding:
    """Boards without a battery for their clock wake up in the past.

    Args:
        now: by this clock.
        installed: it has been later than this once.
        synchronised: None where nobody tells.
    """
    what = f"{now:%Y-%m-%d %H:%M} UTC"
    if now < installed - timedelta(days=1):
        what += f", but this software is of {installed:%Y-%m-%d}"
        return Finding("fail", "clock", what, "set the clock: timedatectl set-ntp true, or date -s")
    if synchronised is False:
        return Finding("warn", "clock", f"{what}, not synchronised", "timedatectl set-ntp true")
    return Finding("ok", "clock", f"{what}, {'synchronised' if synchronised else 'unknown whether synchronised'}")


def _synchronised() -> bool | None:
    if Path("/run/systemd/timesync/synchronized").exists():
        return True
    tool = shutil.which("timedatectl")
    if tool is None:
        return None
    try:
        asked = subprocess.run(  # noqa: S603 (fixed arguments)
            [tool, "show", "--property=NTPSynchronized", "--value"], capture_output=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {b"yes": True, b"no": False}.get(asked.stdout.strip())


def disk(directory: Path) -> Iterator[Finding]:
    """The disk under a folder that is there or will be made: room, kind, speed. Leaves nothing behind."""
    place = next(each for each in (directory.absolute(), *directory.absolute().parents) if each.exists())
    yield judge_space(shutil.disk_usage(place).free, place)
    kind = filesystem(_mounts(), place.resolve())
    if kind in _VOLATILE:
        advice = "choose a directory on a disk: what is not sent yet would be lost at a power cut"
        yield Finding("warn", "disk kind", f"{place} may live in memory ({kind})", advice)
    try:
        mb_s, sync_ms = measure(place)
    except OSError as error:
        yield Finding("fail", "disk speed", f"{place} cannot be written: {error.strerror}", "see its owner and rights")
        return
    yield judge_speed(mb_s, sync_ms)


def judge_space(free: int, place: Path) -> Finding:
    """Free bytes."""
    what = f"{_size(free)} free at {place}"
    if free < _NEARLY_FULL_BYTES:
        return Finding("fail" if free < _FULL_BYTES else "warn", "disk space", what, "make room")
    return Finding("ok", "disk space", what)


def measure(directory: Path) -> tuple[float, float]:
    """MB/s of 4 MiB, and ms of 4 KiB (median of eight), each synced, into a file without a name.

    Raises:
        OSError: the folder cannot be written.
    """
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        began = time.perf_counter()
        for _ in range(4):
            file.write(block)
        os.fsync(file.fileno())
        large_s = time.perf_counter() - began
        small_s = []
        for _ in range(8):
            began = time.perf_counter()
            file.write(block[:4096])
            os.fsync(file.fileno())
            small_s.append(time.perf_counter() - began)
    return 4 * len(block) / large_s / 1e6, 1e3 * median(small_s)


def judge_speed(mb_s: float, sync_ms: float) -> Finding:
    """Whether rounds would mostly wait for the disk."""
    what = f"{mb_s:.1f} MB/s, {sync_ms:.2f} ms a sync"
    if mb_s < _SLOW_MB_S or sync_ms > _SLOW_SYNC_MS:
        return Finding("warn", "disk speed", what, "rounds will wait for it: a better SD card, or a USB disk")
    return Finding("ok", "disk speed", what)


def filesystem(mounts: str, place: Path) -> str | None:
    """The kind of file system that `place`, absolute and without links, is on; `mounts` as /proc/self/mounts has it."""
    on = {}
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split()
        if place.is_relative_to(point):
            on[len(point)] = kind  # a later one covers an earlier one
    return on[max(on)] if on else None


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _said(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return _size(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"
