"""How many examples at once this board can hold: a pure function, and what it measures."""

import resource
from typing import Final

# Of the free memory; the rest is for what else runs there, and for the update.
_SHARE: Final = 0.5


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def micro_batch(granted: int, example_bytes: float, free_bytes: int | None) -> int:
    """Examples in memory at once.

    Args:
        granted: by the device's owner, at most so many.
        example_bytes: what training took for each example, as measured; 0 if it was not.
        free_bytes: memory there is; None if unknown.

    Example:
        >>> micro_batch(1024, 1 << 20, 64 << 20), micro_batch(1024, 0, 64 << 20), micro_batch(1024, 1 << 30, 1 << 20)
        (32, 1024, 1)
    """
    if not example_bytes or free_bytes is None:
        return granted
    return max(1, min(granted, int(free_bytes * _SHARE / example_bytes)))
