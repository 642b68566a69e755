"""An update as few frames: in layers by importance, each cut into coordinate ranges that fit a message."""

import math
from dataclasses import dataclass, replace
from itertools import chain, islice
from operator import add
from typing import Final

import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import F32, Bools
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import absolute as section
from edgeclient.wire.frame import write_values
from edgeclient.wire.frame.body import Body, encode_body
from edgeclient.wire.frame.header import ABSOLUTE, MAX_PARTS, Header, Origin, encode_header
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.reader import sealed

_CHECKSUM: Final = 4
# A frame of a part is filled up to this much, and holds at least the second much of it, unless it is the last.
_AIM: Final = 0.985
_FILLED: Final = 0.9
_FIRST_LAYER: Final = 0.25  # of the entries
_NONE: Final = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Coding:
    """How an update becomes frames.

    Attributes:
        max_bytes: of a frame.
        tensors: (rows, columns) of the layout's tensors, which the receiver must know too; makes smaller frames.
        accel: which kernels to use.
    """

    max_bytes: int = MAX_FRAME_BYTES
    tensors: Tensors | None = None
    accel: Accel = "auto"


def encode_update(
    update: SparseUpdate,
    origin: Origin,
    max_bytes: int,
    *,
    tensors: Tensors | None = None,
    accel: Accel = "auto",
) -> list[bytes]:
    """Pack an update into few frames, each at most `max_bytes`; see Coding for the other arguments.

    The frames carry no identity yet: `stamp` gives epoch and sequence when they are first sent. An
    update without entries makes no frame.

    Raises:
        WireError: "too-large", when not even one entry per frame fits.
    """
    if not update.indices.size:
        return []
    return _framed([update], origin, Coding(max_bytes, tensors, accel), _NONE)[0]


def encode_layers(update: SparseUpdate, origin: Origin, coding: Coding, absolute: F32 = _NONE) -> list[list[bytes]]:
    """The frames of an update in at most two layers, the more important first.

    An update of one frame is one layer. Of a larger one, the first layer holds the largest values, about a quarter of
    the entries: on a link that breaks midway they carry more energy a byte. Where too many values are equal, or most
    coordinates are sent, there is one layer: two would cost positions (up to 0.8 bits an entry) and gain little.

    Of the model's `absolute` values, float32 (a,), the first frame carries a slice, which follows from the number of
    the update.

    Raises:
        WireError: as `encode_update`.

    Example:
        >>> from edgeclient.compress.quantise import quantise
        >>> values = np.array([8, 1, 2, 1, 1, 1, 9, 1], np.float32)
        >>> update = SparseUpdate(99, np.arange(8) * 9, quantise(values, 16.0, "float32"))
        >>> layers = encode_layers(update, Origin("har", "pi-7", b"tag4", 1, 4, 320), Coding(max_bytes=60))
        >>> from edgeclient.wire.frame.format import decode
        >>> [[decode(each).update.values.decoded().tolist() for each in layer] for layer in layers]
        [[[8.0, 9.0]], [[1.0, 2.0, 1.0], [1.0, 1.0], [1.0]]]
    """
    entries = update.indices.size
    if not entries:
        return []
    # The guess is at most twice the bits of structured updates; within that, one frame may do.
    if entries * _guessed_bits(update) < 16 * coding.max_bytes:
        (frames,) = _framed([update], origin, coding, absolute)
        if len(frames) == 1:
            return [frames]
    first = _largest(np.abs(update.values.decoded())) if 2 * entries <= update.size else None
    if first is None:
        return _framed([update], origin, coding, absolute)
    return _framed([update.among(first), update.among(~first)], origin, coding, absolute)


def _largest(magnitudes: F32) -> Bools | None:
    """About the largest quarter, cut between different values; None where no cut is near that."""
    distinct, counts = np.unique(magnitudes, return_counts=True)
    above = np.cumsum(counts[::-1])[::-1] / magnitudes.size
    cut = int(np.abs(above - _FIRST_LAYER).argmin())
    return magnitudes >= distinct[cut] if _FIRST_LAYER / 4 <= above[cut] <= 2 * _FIRST_LAYER else None


def _framed(layers: list[SparseUpdate], origin: Origin, coding: Coding, absolute: F32) -> list[list[bytes]]:
    """The frames of each layer; their parts count on through all of them."""
    kept = section.room(absolute, coding.max_bytes)
    made = [
        _pieces(layer, origin, coding, alone=len(layers) == 1, kept=0 if number else kept)
        for number, layer in enumerate(layers)
    ]
    parts = sum(map(len, made))
    if parts > MAX_PARTS:
        raise WireError("too-large", f"{parts} frames for one update, at most {MAX_PARTS} are allowed")
    heads = [_header(body, origin, layers[0].size, number, parts) for number, body in enumerate(chain(*made))]
    bodies = [body.content for body in chain(*made)]
    carried = section.chosen(absolute, origin, len(heads[0]) + len(bodies[0]) + _CHECKSUM, coding.max_bytes)
    if carried is not None:
        first = replace(made[0][0], flags=made[0][0].flags | ABSOLUTE)
        heads[0] = _header(first, origin, layers[0].size, 0, parts) + section.encode(carried)
    frames = map(sealed, map(add, heads, bodies))
    return [list(islice(frames, len(each))) for each in made]


def _pieces(update: SparseUpdate, origin: Origin, coding: Coding, *, alone: bool, kept: int) -> list[Body]:
    """The update in coordinate ranges that are encoded once or twice each, so that a large one takes linear time.

    `alone`: if it is one piece, that is the whole update. `kept`: bytes that the first frame has for something else.
    """
    k, room = update.indices.size, coding.max_bytes - _CHECKSUM - kept
    made: list[Body] = []
    at, count = 0, min(k, max(1, math.ceil(8 * room / _guessed_bits(update))))
    spare: tuple[int, Body] | None = None  # one that fits, but leaves too much room
    while at < k:
        count = min(count, k - at)
        piece, whole = update.between(at, at + count), alone and count == k
        first, last = (0, update.size - 1) if whole else (int(piece.indices[0]), int(piece.indices[-1]))
        body = encode_body(piece, first, last - first + 1, coding.tensors, coding.accel)
        part, parts = (0, 1) if whole else (MAX_PARTS - 1, MAX_PARTS)
        taken = len(_header(body, origin, update.size, part, parts)) + len(body.content)
        fuller = max(1, int(count * _AIM * room / taken))
        if taken > room and spare is None:
            if count == 1 or len(made) == MAX_PARTS:
                raise WireError("too-large", f"{k} entries do not fit into frames of {coding.max_bytes} bytes")
            count = min(count - 1, fuller)
            continue
        if taken > room and spare is not None:
            count, body = spare
        elif at + count < k and taken < _FILLED * room and fuller > count and spare is None:
            spare = count, body
            count = fuller
            continue
        made.append(body)
        at += count
        count, spare, room = fuller, None, coding.max_bytes - _CHECKSUM
    return made


def _header(body: Body, origin: Origin, size: int, part: int, parts: int) -> bytes:
    where = (part, parts, body.first, body.span) if parts > 1 else None
    return encode_header(Header.of(origin, size, body.flags, part=where))


def _guessed_bits(update: SparseUpdate) -> float:
    """What an entry may cost, a little too low: the floor of its position, and what its value is likely to take."""
    return math.log2(update.size / update.indices.size) + write_values.number_bits(update.values)
