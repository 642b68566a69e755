"""Error feedback: what was not sent is added to the next delta (Seide 2014; EF-SGD, 1901.09847).

The law, per coordinate and up to float32 rounding: `delta + residual + returned = decoded + residual'`.
"""

from collections.abc import Iterable

import numpy as np

from edgeclient.compress.quantise import quantise
from edgeclient.compress.select import Accel, top_k
from edgeclient.compress.update import F32, SparseUpdate


class NotFinite(ValueError):
    """A delta holds NaN or infinity; nothing was changed."""


def compensate(delta: F32, residual: F32, returned: Iterable[SparseUpdate] = ()) -> F32:
    """delta + residual + what came back refused, float32 (n,), in a new array.

    Raises:
        NotFinite: the sum has a NaN or an infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.add(delta, residual, dtype=np.float32)
        for update in returned:
            update.add_to(x)
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x))[0])
        raise NotFinite(f"compensated delta is not finite at coordinate {bad}")
    return x


def compress_with_feedback(
    delta: F32,
    residual: F32,
    k: int,
    *,
    returned: Iterable[SparseUpdate] = (),
    limit: float = float("inf"),
    accel: Accel = "auto",
) -> tuple[SparseUpdate, F32]:
    """Select and quantise the k largest compensated entries.

    Args:
        delta: local - base, float32 (n,).
        residual: what earlier rounds left unsent, float32 (n,).
        k: entries to send at most.
        returned: updates that the aggregator refused; their entries count again.
        limit: largest magnitude to send, a power of two; the excess stays in the residual.
        accel: which selection kernel to use.

    Returns:
        The update and the new residual (n,). The inputs are unchanged.

    Raises:
        NotFinite: delta + residual has a NaN or an infinity.

    Example:
        >>> delta = np.array([4.0, 0.5, -0.25], np.float32)
        >>> update, residual = compress_with_feedback(delta, np.zeros(3, np.float32), k=1)
        >>> update.indices, update.values.decoded(), residual
        (array([0]), array([4.], dtype=float32), array([ 0.  ,  0.5 , -0.25], dtype=float32))
    """
    x = compensate(delta, residual, returned)
    indices = top_k(x, k, accel=accel)
    update = SparseUpdate(x.size, indices, quantise(x[indices], limit))
    x[indices] -= update.values.decoded()
    return update, x
