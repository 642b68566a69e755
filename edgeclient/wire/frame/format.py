"""From the bytes of one MQTT message to a frame, which decodes and applies alone (FORMAT.md, section 3).

Example:
    >>> from edgeclient.compress.feedback import compress_with_feedback
    >>> from edgeclient.wire.frame import Origin, encode_update
    >>> delta = np.array([0, 3, 0, -3, 0], np.float32)
    >>> update, _ = compress_with_feedback(delta, np.zeros(5, np.float32), k=2)
    >>> made = encode_update(update, Origin("har", "pi-7", b"tag4", 1, 4, 320), MAX_FRAME_BYTES)
    >>> decode(stamp(made[0], epoch=7, sequence=0)).update.values.decoded()
    array([ 3., -3.], dtype=float32)
"""

import struct
from typing import Final

import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import absolute
from edgeclient.wire.frame.body import ENTRIES_PER_BYTE, decode_entries
from edgeclient.wire.frame.header import ABSOLUTE, IDENTITY_AT, Frame, read_header
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import MAX_FRAME_BYTES
from edgeclient.wire.messages import FRAME, check_prefix
from edgeclient.wire.reader import Field, Reader, sealed, unsealed

_IDENTITY: Final = struct.Struct("<QI")


def stamp(frame: bytes, *, epoch: int, sequence: int) -> bytes:
    """The same frame with its identity."""
    body = bytearray(unsealed(frame))
    _IDENTITY.pack_into(body, IDENTITY_AT, epoch, sequence)
    return sealed(bytes(body))


def decode(
    data: bytes,
    tensors: Tensors | None = None,
    *,
    max_bytes: int = MAX_FRAME_BYTES,
    accel: Accel = "auto",
    trace: list[Field] | None = None,
) -> Frame:
    """The frame in `data`.

    Args:
        data: a whole message.
        tensors: (rows, columns) of the layout's tensors, as far as it is known here.
        max_bytes: a longer message is refused unread.
        accel: which kernels to use.
        trace: gets which bytes were read as what.

    Raises:
        WireError: anything that FORMAT.md does not allow; "layout", if its tensors are needed and not given.
    """
    return Opened(data, max_bytes=max_bytes, trace=trace).decode(tensors, accel)


class Opened:
    """A frame of which the header is read, so that its reader knows of which layout the entries are.

    Args:
        data: a whole message.
        max_bytes: a longer message is refused unread.
        trace: gets which bytes were read as what.

    Attributes:
        header: checked, as the checksum is.

    Raises:
        WireError: one of them is wrong.
    """

    def __init__(self, data: bytes, *, max_bytes: int = MAX_FRAME_BYTES, trace: list[Field] | None = None) -> None:
        if len(data) > max_bytes:
            raise WireError("too-large", f"{len(data)} bytes, at most {max_bytes} are allowed")
        check_prefix(data, FRAME)
        self._reader = Reader(unsealed(data), trace)
        self._most = ENTRIES_PER_BYTE * self._reader.left
        self.header = read_header(self._reader)

    def decode(self, tensors: Tensors | None, accel: Accel = "auto") -> Frame:
        """The frame, once; arguments and errors as of the function `decode`."""
        carried = absolute.read(self._reader, self.header.size) if self.header.flags & ABSOLUTE else None
        return self.header.frame(decode_entries(self._reader, self.header, self._most, tensors, accel), carried)

    def bare(self) -> Frame:
        """The frame without its entries, for a layout that is not known here."""
        size = self.header.size
        return self.header.frame(SparseUpdate(size, np.empty(0, np.int64), FloatValues(np.empty(0, np.float32))))
