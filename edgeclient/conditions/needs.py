"""What a task takes of a board, told before it is accepted: pure functions."""

from typing import Final

from edgeclient.conditions.board import Observed
from edgeclient.conditions.wear import round_bytes

# float32 vectors of n in memory while a round is trained (counted in train/rounds.py): base and local parameters,
# gradient, its sum over micro-batches, two of AdamW, delta. The residual is mapped.
_VECTORS: Final = 7
# On the disk: two residual slots, two model slots.
_SLOTS: Final = 4


def lacking(size: int, observed: Observed, written_per_day: int, *, begun: bool) -> str | None:
    """Why this board cannot take a task of n = `size` parameters, or None; what is unknown is taken to be there.

    Args:
        size: n.
        observed: the board's memory and disk.
        written_per_day: bytes that may be written to the card a day, 0 for any.
        begun: the device's files for it are there already.

    Example:
        >>> lacking(10**9, Observed(free_bytes=1 << 29), 0, begun=False)
        'it needs about 26702 MiB of memory for training, 512 are free: a smaller model, or a larger board'
        >>> lacking(10**6, Observed(free_bytes=1 << 29), 0, begun=False) is None
        True
    """
    memory, disk, written = _VECTORS * 4 * size, _SLOTS * 4 * size, round_bytes(size, 0)
    if observed.free_bytes is not None and memory > observed.free_bytes:
        return (
            f"it needs about {memory >> 20} MiB of memory for training, {observed.free_bytes >> 20} are free:"
            " a smaller model, or a larger board"
        )
    if observed.free_disk_bytes is not None and not begun and disk > observed.free_disk_bytes:
        return f"it needs {disk >> 20} MiB on the disk, {observed.free_disk_bytes >> 20} are free: make room"
    if written_per_day and written > written_per_day:
        return (
            f"a round writes {written >> 20} MiB, more than the {written_per_day >> 20} MiB a day of"
            " conditions.max_written_bytes_per_day: raise it, or leave the task to a device with a larger disk"
        )
    return None
