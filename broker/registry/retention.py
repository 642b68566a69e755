"""Which versions stay: all new ones, of old ones ever fewer, and those that somebody may want."""

from collections.abc import Collection, Iterable
from typing import Final

_AT_ONCE: Final = 64  # versions, so that a step is short


def kept(number: int, newest: int, keep: int) -> bool:
    """Whether a version stays: all of the newest `keep`, of older ones ever fewer, at multiples of a power of two.

    So about keep · (1 + log2(newest / keep) / 2) versions stay, and one that has gone is never asked for again.

    Example:
        >>> [number for number in range(33) if kept(number, newest=32, keep=4)]
        [0, 8, 16, 20, 24, 26, 28, 29, 30, 31, 32]
    """
    age, step = newest - number, 1
    while age > keep * step:
        step *= 2
    return number % step == 0


def outdated(versions: Iterable[tuple[int, str]], keep: int, wanted: Collection[str]) -> list[int]:
    """Versions (number, digest; all, oldest first) that may go, a few at a time; digests that are `wanted` stay.

    Example:
        >>> outdated([(number, f"{number}") for number in range(10)], keep=3, wanted={"1"})
        [2, 3, 5]
    """
    there = list(versions)
    newest = there[-1][0]
    old = [number for number, digest in there if not kept(number, newest, keep) and digest not in wanted]
    return old[:_AT_ONCE]
