"""Convolutions and pools in any number of spatial dimensions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgeclient.compile.errors import CompileError
from edgeclient.compile.reference.registry import evaluates
from edgeclient.compress.arrays import Array


@dataclass(frozen=True, slots=True)
class _Window:
    """A kernel that slides over padded axes; one number per spatial axis.

    `begin` and `end` are pads, `tail` what ceil_mode adds behind them for the last, incomplete window.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    tail: tuple[int, ...]

    @classmethod
    def of(cls, size: Sequence[int], kernel: Sequence[int], a: dict[str, Any]) -> "_Window":
        """From the size of the input's spatial axes and the attributes of a Conv or a pool."""
        rank = len(size)
        stride = _per_axis(a["strides"], rank)
        dilation = _per_axis(a["dilations"], rank)
        span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        auto_pad = a["auto_pad"]
        if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
            needed = [max(0, (math.ceil(n / s) - 1) * s + k - n) for n, s, k in zip(size, stride, span, strict=True)]
            half = [each // 2 for each in needed]
            rest = [each - other for each, other in zip(needed, half, strict=True)]
            begin, end = (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)
        else:
            pads = a["pads"] if a["pads"] is not None and auto_pad != "VALID" else [0] * (2 * rank)
            begin, end = pads[:rank], pads[rank:]
        tail = [0] * rank
        if a.get("ceil_mode"):
            for axis, (n, b, e, k, s) in enumerate(zip(size, begin, end, span, stride, strict=True)):
                steps = math.ceil((n + b + e - k) / s)
                # A window that begins in the padding behind the input is left out.
                steps -= steps * s >= n + b
                tail[axis] = max(0, steps * s + k - (n + b + e))
        return cls(tuple(kernel), stride, dilation, tuple(begin), tuple(end), tuple(tail))

    def padded(self, x: Array, fill: float, tail: float | None = None) -> Array:
        """With `fill` in the pads and `tail` (or the same) behind them."""
        width = [(0, 0)] * (x.ndim - len(self.kernel))
        x = np.pad(x, [*width, *zip(self.begin, self.end, strict=True)], constant_values=fill)
        last = [(0, extra) for extra in self.tail]
        return np.pad(x, [*width, *last], constant_values=fill if tail is None else tail)

    def slide(self, x: Array) -> Array:
        """(…, padded) → (…, out, kernel), a view."""
        rank = len(self.kernel)
        span = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        view = sliding_window_view(x, span, axis=tuple(range(-rank, 0)))
        steps: list[Any] = [slice(None, None, s) for s in (*self.stride, *self.dilation)]
        return view[..., *steps]


def _per_axis(values: Sequence[int] | None, rank: int) -> tuple[int, ...]:
    return tuple(values) if values is not None else (1,) * rank


def _flat(x: Array, axes: int) -> Array:
    """Joins the last so many axes."""
    return x.reshape(*x.shape[: x.ndim - axes], -1)


@evaluates("Conv")
def conv(x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array, ...]:
    """(N, C, in…) and (M, C/group, kernel…) → (N, M, out…)."""
    rank, group = x.ndim - 2, a["group"]
    window = _Window.of(x.shape[2:], w.shape[2:], a)
    views = window.slide(window.padded(x, 0))
    out = views.shape[2 : 2 + rank]
    # (N, C, out…, kernel…) → (group, N · out, C/group · kernel), which meets (group, C/group · kernel, M/group).
    views = views.reshape(len(x), group, -1, *views.shape[2:])
    axes = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    rows = views.transpose(axes).reshape(group, len(x) * math.prod(out), -1)
    y = rows @ w.reshape(group, len(w) // group, -1).transpose(0, 2, 1)
    y = np.moveaxis(y.reshape(group, len(x), *out, -1), (0, -1), (1, 2)).reshape(len(x), len(w), *out)
    return (y if b is None else y + b.reshape(-1, *[1] * rank),)


@evaluates("ConvTranspose")
def conv_transpose(x: Array, w: Array, b: Array | None = None, **a: Any) -> tuple[Array, ...]:
    """(N, C, in…) and (C, M/group, kernel…) → (N, M, out…)."""
    size, kernel, group, rank = x.shape[2:], w.shape[2:], a["group"], x.ndim - 2
    stride, dilation = _per_axis(a["strides"], rank), _per_axis(a["dilations"], rank)
    extra = tuple(a["output_padding"] or (0,) * rank)
    span = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    whole = [(n - 1) * s + k + e for n, s, k, e in zip(size, stride, span, extra, strict=True)]
    begin, end = _transposed_pads(size, whole, stride, a)
    # Each element spreads the kernel around it: (N, group, kernel…, M/group, in…) added at the kernel's offsets.
    columns = w.reshape(group, -1, *w.shape[1:]).transpose(0, *range(3, 3 + rank), 2, 1)
    spread = columns @ _flat(x.reshape(len(x), group, -1, *size), rank).reshape(
        len(x), group, *[1] * rank, -1, math.prod(size)
    )
    spread = spread.reshape(*spread.shape[:-1], *size)
    y = np.zeros((len(x), group, w.shape[1], *whole))
    for offset in product(*map(range, kernel)):
        at: Any = (slice(None), slice(None), *offset)
        places: list[Any] = [
            slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilation, size, stride, strict=True)
        ]
        y[..., *places] += spread[at]
    # A negative pad is space that nothing reaches.
    inner: list[Any] = [slice(max(0, p), n - max(0, q)) for p, q, n in zip(begin, end, whole, strict=True)]
    room = [(max(0, -p), max(0, -q)) for p, q in zip(begin, end, strict=True)]
    y = np.pad(y[..., *inner], [(0, 0)] * 3 + room)
    y = y.reshape(len(x), -1, *y.shape[3:])
    return (y if b is None else y + b.reshape(-1, *[1] * rank),)


def _transposed_pads(
    size: Sequence[int], whole: Sequence[int], stride: Sequence[int], a: dict[str, Any]
) -> tuple[list[int], list[int]]:
    """What is cropped from each end of each axis."""
    rank, auto_pad, wanted = len(size), a["auto_pad"], a["output_shape"]
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"} and wanted is None:
        wanted = [n * s for n, s in zip(size, stride, strict=True)]
    if wanted is None:
        pads = a["pads"] if a["pads"] is not None and auto_pad != "VALID" else [0] * (2 * rank)
        return list(pads[:rank]), list(pads[rank:])
    total = [n - m for n, m in zip(whole, list(wanted)[-rank:], strict=True)]
    half = [each // 2 for each in total]
    rest = [each - other for each, other in zip(total, half, strict=True)]
    return (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)


@evaluates("MaxPool")
def max_pool(x: Array, **a: Any) -> tuple[Array, ...]:
    """(N, C, in…) → the maxima (N, C, out…) and their places in the flat input, the first of equals.

    Raises:
        CompileError: storage_order 1.
    """
    if a["storage_order"]:
        raise CompileError("MaxPool with storage_order 1 is not evaluated in float64: export it with storage_order 0")
    size, rank = x.shape[2:], x.ndim - 2
    window = _Window.of(size, a["kernel_shape"], a)
    views = _flat(window.slide(window.padded(x, -np.inf)), rank)
    best = views.argmax(-1)
    y = np.take_along_axis(views, best[..., None], -1)[..., 0]
    out = views.shape[2:-1]
    inside = np.unravel_index(best, window.kernel)
    place = np.zeros(best.shape, np.int64)
    for axis, (n, offset) in enumerate(zip(size, inside, strict=True)):
        first = np.arange(out[axis]) * window.stride[axis] - window.begin[axis]
        first = first.reshape(-1, *[1] * (rank - 1 - axis))
        place = place * n + first + offset * window.dilation[axis]
    images = np.arange(len(x) * x.shape[1]).reshape(len(x), -1, *[1] * rank)
    return y, place + images * math.prod(size)


@evaluates("AveragePool")
def average_pool(x: Array, **a: Any) -> tuple[Array, ...]:
    """(N, C, in…) → (N, C, out…); padding counts on demand, what ceil_mode adds behind it never."""
    rank = x.ndim - 2
    window = _Window.of(x.shape[2:], a["kernel_shape"], {"dilations": None, **a})
    counted = window.padded(np.ones(x.shape[2:]), 1.0 if a["count_include_pad"] else 0.0, tail=0.0)
    total = _flat(window.slide(window.padded(x, 0)), rank).sum(-1)
    return (total / _flat(window.slide(counted), rank).sum(-1),)
