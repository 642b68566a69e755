"""The command `edgeclient warmup`: compile the numba twins when a device is installed, not in its first round."""

import json
import os
import time
from importlib import metadata
from typing import Any

import click
import numpy as np

from edgeclient.commands.options import JSON
from edgeclient.compress.feedback import compress
from edgeclient.compress.select import KERNEL
from edgeclient.compress.update import add_units
from edgeclient.wire import frame
from edgeclient.wire.limits import MAX_FRAME_BYTES


def warm() -> dict[str, Any]:
    """Send an update of every kind through everything that has a compiled twin.

    Returns:
        `backend`; `numba_from`, parameters from which a model's selection uses numba; `numba`, its version; `cpu`, what
        it compiles for; `seconds` to compile the kernels, or to load them from the cache on disk; `why`, what keeps
        numba from being used.
    """
    began = time.perf_counter()
    if (why := KERNEL.why_not()) is not None:
        seconds = time.perf_counter() - began
        return {"backend": "numpy", "numba_from": None, "numba": None, "cpu": None, "seconds": seconds, "why": why}
    delta = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    origin = frame.Origin("warmup", "warmup", bytes(4), 0, 0, 1)
    # Different densities make the encoder choose different codes.
    for k in (10, 20, 30, 50, 70, 100, 150, 250, 400):
        made = compress(delta, np.zeros_like(delta), k, accel="numba")
        compress(delta, made.residual, k, returned=[made.update], accel="numba")
        add_units(np.zeros(delta.size, np.int64), made.update.indices, made.update.values.decoded(), 0, 1)
        for tensors in (None, ((20, 50),)):
            for each in frame.encode_update(made.update, origin, MAX_FRAME_BYTES, tensors=tensors, accel="numba"):
                frame.decode(each, tensors, accel="numba")
    cpu, seconds = os.environ.get("NUMBA_CPU_NAME", "host"), time.perf_counter() - began
    found = {"numba_from": KERNEL.numba_from, "numba": metadata.version("numba"), "cpu": cpu}
    return {"backend": "numba", **found, "seconds": seconds, "why": None}


@click.command("warmup")
@JSON
def warmup_command(*, as_json: bool) -> None:
    """Compile the fast kernels now, so that no round waits for it; they are kept on disk.

    With `pip install '.[accel]'` in the clone they are compiled by numba; without it the NumPy kernels are used, which
    give the same results and need no warm-up.

    \b
    Example:
      edgeclient warmup --json
    """
    made = warm()
    if as_json:
        click.echo(json.dumps(made))
    elif made["why"] is not None:
        click.echo(f"NumPy kernels: numba cannot be used ({made['why']})")
    else:
        click.echo(f"numba {made['numba']} for cpu {made['cpu']}: kernels ready after {made['seconds']:.1f} s")
        click.echo(f"  selection uses it from {made['numba_from']:,} parameters on")
