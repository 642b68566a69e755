"""A round of a very large model: delta and residual slots are files, nothing else has as many numbers."""

import math
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, Self

import click
import numpy as np

from edgeclient.compress.arrays import F32
from edgeclient.compress.feedback import compress
from edgeclient.compress.select import KERNEL
from edgeclient.durable.slots import Slots
from edgeclient.wire import frame
from edgeclient.wire.limits import MAX_FRAME_BYTES
from tools.bench import report

N: Final = 10**9
QUICK_N: Final = 20_000_000
DENSITY: Final = 0.001
COLUMNS: Final = 4096
BLOCK: Final = 1 << 22
# As after nine rounds of error feedback on noise of size one.
RESIDUAL_SIZE: Final = 3.0


class AnonymousMemory:
    """The most memory that this process had beyond files while it was watched, in MiB."""

    def __init__(self) -> None:
        self.peak_mib = self.before_mib = report.memory_mib("self", "RssAnon")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.peak_mib = max(self.peak_mib, report.memory_mib("self", "RssAnon"))


@click.command("scale")
@click.option("--n", "size", type=click.IntRange(COLUMNS), help=f"Parameters; default {N:,}, quick {QUICK_N:,}.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where the files go, 12 bytes a parameter; removed at the end. Default: where temporary files go.",
)
@report.options("Under a minute.")
def scale_command(
    size: int | None, folder: Path | None, seed: int, out: Path | None, *, quick: bool, as_json: bool
) -> None:
    """One round at a billion parameters: select 0.1 %, quantise, encode into frames, update the residual.

    Delta and both residual slots are memory-mapped files, in the page cache when the round begins. The seconds are
    those of the round but for the wait for the disk and the checksum, which are reported beside them.

    \b
    Example:
      python -m tools.bench scale --n 100000000 --dir /var/tmp
    """
    n = size or (QUICK_N if quick else N)
    place = folder or Path(tempfile.gettempdir())
    need, free = 12 * n + (1 << 28), shutil.disk_usage(place).free
    if free < need:
        raise click.ClickException(
            f"{place} has {free / 1e9:.1f} GB free, this needs {need / 1e9:.1f} GB: see --dir, --n"
        )
    with tempfile.TemporaryDirectory(prefix="edgeclient-scale-", dir=place) as directory:
        summary = _measure(Path(directory), n, np.random.default_rng(seed), say=not as_json)
    if out is not None:
        _plot(summary, out)
    report.tell(summary, [], as_json=as_json, seed=seed)


def _measure(directory: Path, n: int, rng: np.random.Generator, *, say: bool) -> dict[str, Any]:
    KERNEL.why_not()  # compiles, so that the round does not
    slots = Slots(directory, n)
    slots.create()
    delta_path = directory / "delta"
    noise = rng.standard_normal(2 * BLOCK, dtype=np.float32)
    residual = slots.open(0)
    _fill(residual, noise * np.float32(RESIDUAL_SIZE), rng)
    slots.write(0, residual)
    delta: F32 = np.memmap(delta_path, "<f4", "w+", shape=(n,))
    k = math.ceil(n * DENSITY)
    _fill(delta, noise, rng)
    made = compress(delta, slots.view(0), k, out=slots.open(1))  # a round before, which leaves a threshold
    slots.write(1, made.residual)
    threshold = made.threshold
    _fill(delta, noise, rng)
    assert isinstance(delta, np.memmap)
    delta.flush()
    del residual, made, delta, noise
    if say:
        click.echo("files are ready", err=True)

    tensors = [(n // COLUMNS, COLUMNS)] + [(1, n % COLUMNS)] * (n % COLUMNS > 0)
    origin = frame.Origin("scale", "device", bytes(4), 1, 1, 1)
    with AnonymousMemory() as memory:
        began = time.perf_counter()
        mapped: F32 = np.memmap(delta_path, "<f4", "r")
        made = compress(mapped, slots.view(1), k, last_threshold=threshold, out=slots.open(0))
        selected = time.perf_counter()
        frames = frame.encode_update(made.update, origin, MAX_FRAME_BYTES, tensors=tensors)
        encoded = time.perf_counter()
    slots.write(0, made.residual)
    synced = time.perf_counter()
    slots.checksum(0)
    checked = time.perf_counter()
    return {
        "n": n,
        "entries": int(made.update.indices.size),
        "seconds": encoded - began,
        "compress_seconds": selected - began,
        "encode_seconds": encoded - selected,
        "fsync_seconds": synced - encoded,
        "checksum_seconds": checked - synced,
        "extra_rss_mib": memory.peak_mib,
        "rss_before_mib": memory.before_mib,
        "frames": len(frames),
        "frame_bytes": sum(map(len, frames)),
        "largest_frame": max(map(len, frames)),
    }


def _fill(array: F32, noise: F32, rng: np.random.Generator) -> None:
    for start in range(0, array.size, BLOCK):
        part = array[start : start + BLOCK]
        first = int(rng.integers(BLOCK))
        part[:] = noise[first : first + part.size]


def _plot(summary: dict[str, Any], out: Path) -> None:
    with report.figure(out / "scale.png", 8, 2.5) as figure:
        axes = figure.subplots()
        left = 0.0
        for name in ("compress", "encode", "fsync", "checksum"):
            seconds = summary[f"{name}_seconds"]
            axes.barh(0, seconds, left=left, label=f"{name} {seconds:.1f} s")
            left += seconds
        axes.set_yticks([])
        axes.set_xlabel(f"seconds for {summary['n']:,} parameters")
        axes.legend(ncols=4, loc="upper center")
        axes.set_ylim(-0.5, 1)
