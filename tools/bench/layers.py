"""Energy received for each byte received on a link that dies midway: importance layers against unordered frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from edgeclient.compress.feedback import compress
from edgeclient.compress.quantise import Mode, Quantiser
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import frame
from tools import masks
from tools.bench import report

_ORIGIN: Final = frame.Origin("bench", "device-1", bytes(4), 100, 100, 500)
_ORDERS: Final = 200
_SHARES: Final = (0.1, 0.25, 0.5, 0.75)


@click.command("layers")
@report.options("A million parameters, not ten.")
def layers_command(seed: int, out: Path | None, *, quick: bool, as_json: bool) -> None:
    """Share of an update's energy that is there after 10, 25, 50 and 75 % of its bytes.

    "layered" sends the first layer first, and is the same as "unordered" (the mean of random orders of frames in one
    layer) where there is one layer. `cost` is what two layers add to the bytes. Sources: first rounds, before error
    feedback has evened out the magnitudes (Laplace), rounds long after (a steady residual), and captured updates.

    \b
    Example:
      python -m tools.bench layers --out plots
    """
    rng = np.random.default_rng(seed)
    n = 1_000_000 if quick else 10_000_000
    rows = []
    for mode in ("step", "int8", "float32"):
        for source, update in (("first round", _first(n, mode, rng)), ("steady", _steady(n, mode, rng))):
            rows.append(_row(source, mode, update, frame.Coding(16_384), rng))
    for path in sorted(masks.COMMITTED.glob("*-0.05.npz")):
        tensors, captured = masks.load(path)
        rows.append(_row(path.stem, "step", captured[-1].update(tensors), frame.Coding(2048, tensors=tensors), rng))
    if out is not None:
        _plot(rows, out)
    report.tell(
        {}, [{key: value for key, value in row.items() if key != "curves"} for row in rows], as_json=as_json, seed=seed
    )


def _first(n: int, mode: Mode, rng: np.random.Generator) -> SparseUpdate:
    delta = rng.laplace(size=n).astype(np.float32)
    return compress(delta, np.zeros(n, np.float32), n // 100, quantiser=Quantiser(16.0, mode)).update


def _steady(n: int, mode: Mode, rng: np.random.Generator) -> SparseUpdate:
    residual = np.zeros(n, np.float32)
    for _ in range(12):
        made = compress(rng.laplace(size=n).astype(np.float32), residual, n // 100, quantiser=Quantiser(1e6, mode))
        residual = made.residual
    return made.update


def _row(
    source: str, mode: str, update: SparseUpdate, coding: frame.Coding, rng: np.random.Generator
) -> dict[str, Any]:
    layers = frame.encode_layers(update, _ORIGIN, coding)
    plain = frame.encode_update(update, _ORIGIN, coding.max_bytes, tensors=coding.tensors)
    ordered = [body for layer in layers for body in layer]
    total = sum(map(len, plain))
    orders = [rng.permutation(len(plain)) for _ in range(_ORDERS)]
    measured = _measured(plain, coding)
    theirs = np.mean([_arrived([measured[i] for i in order], total) for order in orders], axis=0)
    ours = _arrived(_measured(ordered, coding), total) if len(layers) > 1 else theirs
    told = {f"{name}_{share:.0%}": float(np.interp(share, _GRID, curve)) for share in _SHARES
            for name, curve in (("layered", ours), ("unordered", theirs))}  # fmt: skip
    return {
        "source": source, "mode": mode, "n": update.size, "layers": len(layers), "frames": len(ordered),
        "first_layer": sum(map(len, layers[0])) / sum(map(len, ordered)), "cost": sum(map(len, ordered)) / total - 1,
        **told, "curves": (ours, theirs),
    }  # fmt: skip


_GRID: Final = np.linspace(0, 1, 101)


def _measured(bodies: Sequence[bytes], coding: frame.Coding) -> list[tuple[int, float]]:
    """Bytes and energy of each frame."""
    values = [frame.decode(each, coding.tensors).update.values.decoded().astype(np.float64) for each in bodies]
    return [(len(body), float((each**2).sum())) for body, each in zip(bodies, values, strict=True)]


def _arrived(frames: Sequence[tuple[int, float]], total: int) -> Any:
    """Share of the energy that has arrived at each point of the grid, in bytes of the unordered update."""
    sizes, energies = (np.cumsum(each) for each in zip(*frames, strict=True))
    index = np.searchsorted(sizes, _GRID * total, side="right")
    return np.concatenate([[0.0], energies / energies[-1]])[index]


def _plot(rows: Sequence[dict[str, Any]], out: Path) -> None:
    with report.figure(out / "layers.png", 12, 7) as figure:
        for axes, row in zip(figure.subplots(3, 3).flat, rows, strict=True):
            ours, theirs = row["curves"]
            axes.plot(_GRID, ours, label="layered")
            axes.plot(_GRID, theirs, "--", label="unordered")
            axes.set_title(f"{row['source']}, {row['mode']}: {row['layers']} layers")
            axes.set_xlabel("share of the bytes")
            axes.set_ylabel("share of the energy")
            axes.legend()
