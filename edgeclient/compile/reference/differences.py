"""Gradients checked by finite differences of a float64 function."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F64, Array

# The first step, and the factor between steps. Smooth functions need one step: extrapolated differences are right to
# step⁴, and rounding adds 1e-15 ÷ step. Nets of ReLU and MaxPool bend somewhere within it; a thousandth of it rarely.
STEP: Final = 1e-5
_SHRINK: Final = 0.1
_STEPS: Final = 3
# Doubt ÷ norm of the gradient: below the first a step is good, above the second a direction counts as bent.
_GOOD: Final = 1e-8
_BENT: Final = 1e-6
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Probe:
    """A derivative along a direction.

    Attributes:
        value: the central difference, extrapolated from two steps (Richardson).
        doubt: how far the differences contradict each other. On a smooth function an upper bound of the error; large
            where the function bends between the points.
    """

    value: float
    doubt: float


def probe(
    f: Callable[[F64], float],
    at: F64,
    direction: F64,
    *,
    step: float = STEP,
    good: float = 0.0,
    middle: float | None = None,
) -> Probe:
    """df/dt of f(at + t · direction) at t = 0; the least doubtful of three steps.

    With D(h) = (f(h) − f(−h)) / 2h and S(h) = (f(h) − 2 f(0) + f(−h)) / h, a smooth f has D(h) = D(h/2) and
    S(h) = 2 S(h/2), up to h². A bend of slope s at distance t < h moves the first by s·t/2h and the second by up to s,
    so that one of the two sees it wherever it lies, also at 0, where there is no derivative.

    Args:
        f: float64 in, float64 out.
        at: the point.
        direction: of the same shape.
        step: the first; the others are a tenth and a hundredth of it.
        good: smaller steps are spared when the doubt is at most this, or no more than rounding.
        middle: f(at), when known.

    Example:
        >>> x = np.array([1.0, 2.0])
        >>> round(probe(lambda p: float(p @ p), x, np.array([1.0, 1.0])).value, 9)
        6.0
    """
    middle = f(at) if middle is None else middle
    best = Probe(np.nan, np.inf)
    for h in (step * _SHRINK**i for i in range(_STEPS)):
        ahead, behind, half_ahead, half_behind = (f(at + t * direction) for t in (h, -h, h / 2, -h / 2))
        whole, half = (ahead - behind) / (2 * h), (half_ahead - half_behind) / h
        bend = (ahead - 2 * middle + behind) / h - 4 * (half_ahead - 2 * middle + half_behind) / h
        found = Probe((4 * half - whole) / 3, max(abs(half - whole), abs(bend)))
        if found.doubt < best.doubt:
            best = found
        if best.doubt <= max(good, _rounding(middle, h)):
            break
    return best


def _rounding(value: float, step: float) -> float:
    """The doubt that rounding alone makes: S(h) adds sixteen values, each rounded in many sums."""
    return 64 * float(np.finfo(np.float64).eps) * abs(value) / step


@dataclass(frozen=True, slots=True)
class TensorError:
    """How wrong the gradient of one tensor is.

    Attributes:
        name: of the parameter.
        norm: of its gradient as given.
        error: of the difference between it and the right one, estimated; infinite when it holds what is not finite.
        probes: derivatives that it was compared with.
        bent: directions given up because the function bends at the point itself. With no probes, nothing is known.
    """

    name: str
    norm: float
    error: float
    probes: int
    bent: int


@dataclass(frozen=True, slots=True)
class GradientError:
    """How wrong a gradient is. Every error is relative to the norm of the whole gradient.

    A tensor's own norm would be no measure: that of a bias before a batch normalisation is mathematically zero.
    """

    tensors: tuple[TensorError, ...]

    @property
    def norm(self) -> float:
        """Of the whole gradient, as given."""
        return float(np.linalg.norm([each.norm for each in self.tensors]))

    @property
    def relative(self) -> float:
        """Of the whole gradient: 0 is right; 1 when it is zero and should not be."""
        error = float(np.linalg.norm([each.error for each in self.tensors]))
        if not np.isfinite(error):
            return np.inf
        return error / max(self.norm, error) if error else 0.0

    @property
    def worst(self) -> str:
        """The name of the tensor with the largest error."""
        return max(self.tensors, key=lambda each: each.error).name

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Tensors of which nothing is known."""
        return tuple(each.name for each in self.tensors if not each.probes)


def gradient_error(
    loss: Callable[[dict[str, F64]], float],
    parameters: Mapping[str, Array],
    gradients: Mapping[str, Array],
    rng: np.random.Generator,
    coordinates: int = 8,
    directions: int = 1,
) -> GradientError:
    """Compare gradients with finite differences of the loss.

    Each tensor is probed along its own gradient, which sees wrong factors; along random vectors v of ±1, which see all
    coordinates at once (for an error e, E[(e·v)²] = ‖e‖²); and at single coordinates, half of them those with the
    largest gradients, half random. Its error is the largest of the three estimates of ‖e‖. A random direction or
    coordinate at which the function bends (ReLU, MaxPool) is replaced, up to three times. Of a tensor that
    is no larger than `coordinates`, the error is exact.

    At a point where the function bends in every direction (a ReLU of exactly 0, as of a zero bias on zero input) there
    is no gradient to compare with: see GradientError.unchecked.

    Args:
        loss: of all parameters by name, float64 in and out.
        parameters: all of them; those without a gradient stay as they are.
        gradients: of one or more parameters, of the same shapes.
        rng: chooses coordinates and directions.
        coordinates: per tensor; each costs 4 to 12 losses, and so does each direction.
        directions: random ones per tensor.

    Raises:
        ValueError: a gradient belongs to no parameter, or has another shape.

    Example:
        >>> p = {"w": np.array([1.0, 2.0, 3.0])}
        >>> right, wrong = {"w": 2 * p["w"]}, {"w": np.array([2.0, 4.0, 6.006])}
        >>> square = lambda values: float((values["w"] ** 2).sum())
        >>> gradient_error(square, p, right, np.random.default_rng(1)).relative < 1e-9
        True
        >>> f"{gradient_error(square, p, wrong, np.random.default_rng(1)).relative:.1e}"
        '8.0e-04'
    """
    point = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    given = {name: np.asarray(value, np.float64) for name, value in gradients.items()}
    for name, gradient in given.items():
        if name not in point or gradient.shape != point[name].shape:
            raise ValueError(f"the gradient of {name} has the shape {gradient.shape}, which is no parameter's")
    norm = float(np.linalg.norm([np.linalg.norm(each) for each in given.values()]))
    check = _Check(loss, point, loss(point), norm if norm and np.isfinite(norm) else 1.0)
    return GradientError(
        tuple(check.tensor(name, gradient, rng, coordinates, directions) for name, gradient in given.items())
    )


@dataclass(frozen=True, slots=True)
class _Check:
    loss: Callable[[dict[str, F64]], float]
    point: dict[str, F64]
    middle: float
    scale: float

    def tensor(
        self, name: str, gradient: F64, rng: np.random.Generator, coordinates: int, directions: int
    ) -> TensorError:
        norm = float(np.linalg.norm(gradient))
        if not np.isfinite(norm):
            return TensorError(name, 0.0, np.inf, 1, 0)

        def f(value: F64) -> float:
            return self.loss({**self.point, name: value})

        bent, limit = 0, max(_BENT * self.scale, _rounding(self.middle, STEP))

        def difference(candidates: Iterator[F64]) -> float | None:
            """Probed minus given, along the first candidate without a bend."""
            nonlocal bent
            for direction in candidates:
                found = probe(f, self.point[name], direction, good=_GOOD * self.scale, middle=self.middle)
                if found.doubt <= limit:
                    return found.value - float((gradient * direction).sum())
                bent += 1
            return None

        def some(asked: Iterator[Iterator[F64]]) -> list[float]:
            return [found for found in map(difference, asked) if found is not None]

        shape, size = gradient.shape, gradient.size
        single = some(_coordinates(rng, gradient, min(coordinates, size)))
        if len(single) == size:
            return TensorError(name, norm, float(np.linalg.norm(single)), size, bent)
        along = some(iter([iter([gradient / norm])] if norm else []))
        signs = some(_signs(rng, shape) for _ in range(directions))
        estimates = [
            max((abs(each) for each in along), default=0.0),
            float(np.sqrt(np.mean(np.square(signs)))) if signs else 0.0,
            float(np.linalg.norm(single)),
        ]
        return TensorError(name, norm, max(estimates), len(along) + len(signs) + len(single), bent)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[F64]:
    for _ in range(_TRIES):
        yield rng.choice([-1.0, 1.0], shape)


def _coordinates(rng: np.random.Generator, gradient: F64, count: int) -> Iterator[Iterator[F64]]:
    """Unit vectors: half for the largest entries, half for others at random; each with others to replace it."""
    largest = (count + 1) // 2
    order = np.argsort(-np.abs(gradient), axis=None, kind="stable")
    rest = rng.permutation(order[largest:])
    chosen, spare = [*order[:largest], *rest[: count - largest]], iter(rest[count - largest :])

    def unit(index: int) -> F64:
        made = np.zeros(gradient.size)
        made[index] = 1
        return made.reshape(gradient.shape)

    def candidates(first: int) -> Iterator[F64]:
        yield unit(first)
        for _, index in zip(range(_TRIES - 1), spare, strict=False):
            yield unit(index)

    return (candidates(int(index)) for index in chosen)
