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

from edgeclient.compress.arrays import F32, Array
from edgeclient.wire.errors import WireError
from edgeclient.wire.limits import MAX_SIZE


@dataclass(frozen=True, slots=True)
class Parameter:
    """A trained tensor."""

    name: str
    shape: tuple[int, ...]

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
        """SHA-256 (hex) of the canonical JSON [[name, [dimension, ...]], ...]."""
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

    def as_json(self) -> list[list[Any]]:
        """[[name, [dimension, ...]], ...]."""
        return [[parameter.name, list(parameter.shape)] for parameter in self.parameters]

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
