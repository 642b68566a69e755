"""The layout: which slice of the flat vector is which parameter, named by its hash (FORMAT.md, section 8)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from edgeclient.bundle.domain import Bounds, Domain
from edgeclient.compress.arrays import F32, Array
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_SIZE


@dataclass(frozen=True, slots=True)
class Parameter:
    """A tensor of the model; one with bounds travels as absolute values, the others as differences."""

    name: str
    shape: tuple[int, ...]
    bounds: Bounds | None = None

    @property
    def size(self) -> int:
        """How many numbers."""
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Parameters in the order of the flat vector.

    Raises:
        WireError: "layout" for no parameters, a name twice, an empty or oversized tensor.

    Example:
        >>> layout = Layout((Parameter("w", (2, 2)), Parameter("b", (2,))))
        >>> layout.size, layout.slices["b"], layout.digest[:8]
        (6, slice(4, 6, None), '98c69cbb')
    """

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        names = [parameter.name for parameter in self.parameters]
        if not names or len(set(names)) < len(names):
            raise WireError("layout", "no parameters, or a name stands twice")
        for parameter in self.parameters:
            if any(dimension < 1 for dimension in parameter.shape):
                raise WireError("layout", f"{parameter.name[:80]} has shape {parameter.shape}")
        if self.size > MAX_SIZE:
            raise WireError("layout", f"{self.size} numbers, at most {MAX_SIZE} are allowed")

    @cached_property
    def size(self) -> int:
        """n, length of the flat vector."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of `as_json`."""
        return sha256(json.dumps(self.as_json(), separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies."""
        bounds = pairwise(self.bounds)
        return {parameter.name: slice(*each) for parameter, each in zip(self.parameters, bounds, strict=True)}

    @cached_property
    def tag(self) -> bytes:
        """The first 4 bytes of the digest, which frames carry."""
        return bytes.fromhex(self.digest)[:4]

    @cached_property
    def tensors(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each parameter: the last dimension is columns, and a vector is one row."""
        shapes = [
            (parameter.size, parameter.shape[-1] if len(parameter.shape) > 1 else parameter.size)
            for parameter in self.parameters
        ]
        return tuple((size // columns, columns) for size, columns in shapes)

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Coordinates where the parameters begin, and n."""
        return tuple(accumulate((parameter.size for parameter in self.parameters), initial=0))

    @cached_property
    def domain(self) -> Domain:
        """What travels as absolute values, and its bounds."""
        return Domain.of((self.slices[each.name], each.bounds) for each in self.parameters)

    def as_json(self) -> list[list[Any]]:
        """[[name, [dimension, ...]], ...], with [lowest, highest] behind the shape of what has bounds."""
        return [
            [each.name, list(each.shape), *([each.bounds.as_json()] if each.bounds is not None else [])]
            for each in self.parameters
        ]

    def fault(self, flat: F32) -> str:
        """The first tensor with a number that is not finite or outside its bounds, in words; "" for none.

        Example:
            >>> layout = Layout((Parameter("w", (1,)), Parameter("bn.var", (2,), Bounds(low=0.0))))
            >>> layout.fault(np.array([1, 0.5, -0.25], np.float32)), layout.fault(np.ones(3, np.float32))
            ('bn.var has -0.25, outside 0.0 to 2^36', '')
        """
        for each in self.parameters:
            values = flat[self.slices[each.name]]
            low, high = each.bounds.numbers if each.bounds is not None else (-np.inf, np.inf)
            wrong = values[~(np.isfinite(values) & (values >= low) & (values <= high))]
            if wrong.size:
                what = "which is no number" if not np.isfinite(wrong[0]) else f"outside {_told(low)} to {_told(high)}"
                return f"{each.name[:80]} has {wrong[0]}, {what}"
        return ""

    def flatten(self, arrays: Mapping[str, Array]) -> F32:
        """The flat vector, float32 (n,); WireError("layout") when the arrays are others than the layout's."""
        if arrays.keys() != self.slices.keys():
            raise WireError("layout", f"parameters {sorted(arrays)} are not {sorted(self.slices)}"[:300])
        flat = np.empty(self.size, np.float32)
        for parameter in self.parameters:
            array = arrays[parameter.name]
            if array.shape != parameter.shape:
                raise WireError("layout", f"{parameter.name} has shape {array.shape}, not {parameter.shape}")
            flat[self.slices[parameter.name]] = array.ravel()
        return flat

    def split(self, flat: F32) -> dict[str, F32]:
        """Views of the flat vector, by name."""
        return {each.name: flat[self.slices[each.name]].reshape(each.shape) for each in self.parameters}


def _told(bound: float) -> str:
    return {2.0**36: "2^36", -(2.0**36): "-2^36"}.get(bound, str(bound))
