"""Error feedback: what was not sent is added to the next delta (Seide 2014; EF-SGD, 1901.09847).

The law, per coordinate and up to float32 rounding: `delta + residual + returned = decoded + residual'`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.pace import Target, chosen
from edgeclient.compress.quantise import Quantiser
from edgeclient.compress.select import Selection, select, top_k
from edgeclient.compress.update import SparseUpdate


class NotFinite(ValueError):
    """A delta holds NaN or infinity; nothing was changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """What a round of compression makes.

    Attributes:
        update: the entries to send.
        residual: float32 (n,), what stays; `out`, if that was given.
        selection: the k largest compensated entries, of which a target may have left some out.
        threshold: magnitude of the smallest of them; where there was none, that of the round before.
    """

    update: SparseUpdate
    residual: F32
    selection: Selection
    threshold: float

    @property
    def norm(self) -> float | None:
        """Euclidean norm of the residual, None where there is none; 0.2 ms per million parameters, measured."""
        norm = math.sqrt(np.dot(self.residual, self.residual))
        return norm if math.isfinite(norm) else None


def compress(
    delta: F32,
    residual: F32,
    k: int | Target,
    *,
    returned: Iterable[SparseUpdate] = (),
    quantiser: Quantiser | None = None,
    accel: Accel = "auto",
    last_threshold: float = 0.0,
    out: F32 | None = None,
) -> Compressed:
    """Select and quantise the k largest compensated entries, in one sweep of memory.

    The three vectors may be memory-mapped files: nothing else here has n numbers.

    Args:
        delta: local - base, float32 (n,).
        residual: what earlier rounds left unsent, float32 (n,).
        k: entries to send at most, or a target with a threshold.
        returned: updates that the aggregator refused; their entries count again.
        quantiser: how precise the values are, and how large at most; None for a step grid without a limit.
        accel: which selection kernel to use.
        last_threshold: `threshold` of the round before, 0 if there was none. Makes the sweep shorter, and changes
            no result.
        out: where the new residual goes, such as the idle residual slot: float32 (n,), contiguous, apart from the
            other two. None makes a new array.

    Returns:
        The update, the new residual and the threshold for the next round. Delta and residual are unchanged.

    Raises:
        NotFinite: delta + residual + returned has a NaN or an infinity; only `out` was written to.
        ValueError: vectors that do not fit together, or k < 0.

    Example:
        >>> delta = np.array([4.0, 0.5, -0.25], np.float32)
        >>> made = compress(delta, np.zeros(3, np.float32), k=1)
        >>> made.update.indices, made.update.values.decoded(), made.residual, made.threshold
        (array([0]), array([4.], dtype=float32), array([ 0.  ,  0.5 , -0.25], dtype=float32), 4.0)
    """
    terms = np.require(delta, np.float32, ["C", "A"]), np.require(residual, np.float32, ["C", "A"])
    x = np.empty(terms[0].shape, np.float32) if out is None else out
    _check(x, *terms)
    came_back = list(returned)
    if came_back:
        with np.errstate(over="ignore", invalid="ignore"):
            np.add(*terms, out=x)
            for back in came_back:
                back.add_to(x)
    most = k.most if isinstance(k, Target) else k
    selection = select(x, most, total_of=None if came_back else terms, last_threshold=last_threshold, accel=accel)
    if selection is None:
        raise NotFinite(f"compensated delta is not finite at coordinate {_first_bad(x)}")
    positions = chosen(selection.values, k) if isinstance(k, Target) else None
    update = _sent(x, selection, positions, quantiser)
    return Compressed(update, x, selection, selection.threshold or last_threshold)


def fewer(made: Compressed, k: int, quantiser: Quantiser | None = None) -> Compressed:
    """The same round with the k largest of its entries alone; the others are back in the residual, to the last bit.

    Example:
        >>> made = compress(np.array([4.0, 0.5, 3.0], np.float32), np.zeros(3, np.float32), k=2)
        >>> made = fewer(made, 1)
        >>> made.update.indices, made.residual
        (array([0]), array([0. , 0.5, 3. ], dtype=float32))
    """
    made.residual[made.selection.indices] = made.selection.values
    update = _sent(made.residual, made.selection, top_k(made.selection.values, k), quantiser)
    return replace(made, update=update)


def _sent(x: F32, selection: Selection, positions: I64 | None, quantiser: Quantiser | None) -> SparseUpdate:
    """The update of some selected entries; what it says of them is taken from x."""
    indices, values = selection.indices, selection.values
    if positions is not None and positions.size < indices.size:
        indices, values = indices[positions], values[positions]
    update = SparseUpdate(x.size, indices, (quantiser or Quantiser(float("inf")))(indices, values))
    x[indices] = values - update.values.decoded()
    return update


def compress_with_feedback(
    delta: F32,
    residual: F32,
    k: int,
    *,
    returned: Iterable[SparseUpdate] = (),
    limit: float = float("inf"),
    accel: Accel = "auto",
) -> tuple[SparseUpdate, F32]:
    """One round of `compress` on its own, without a threshold to carry over: the update and the new residual.

    Example:
        >>> update, residual = compress_with_feedback(np.array([4.0, 0.5], np.float32), np.zeros(2, np.float32), k=1)
        >>> update.indices, residual
        (array([0]), array([0. , 0.5], dtype=float32))
    """
    made = compress(delta, residual, k, returned=returned, quantiser=Quantiser(limit), accel=accel)
    return made.update, made.residual


def _check(x: F32, *terms: F32) -> None:
    if any(each.shape != x.shape or each.ndim != 1 for each in terms):
        raise ValueError(f"a delta and residual of shapes {[each.shape for each in terms]} into one of {x.shape}")
    if x.dtype != np.float32 or not x.flags.carray:
        raise ValueError("the new residual needs an array of float32 that is contiguous, aligned and writeable")
    if any(np.may_share_memory(x, each) for each in terms):
        raise ValueError("the new residual would overwrite what it is made from")


def _first_bad(x: F32) -> int:
    """The first coordinate that is not finite; those before it have been added, those behind it need not be."""
    block = 1 << 20
    for start in range(0, x.size, block):
        bad = np.flatnonzero(~np.isfinite(x[start : start + block]))
        if bad.size:
            return start + int(bad[0])
    raise AssertionError("every coordinate is finite")
