"""What the comparison's own messages have in common: head and checksum of the product's frames."""

from typing import Final

import numpy as np

from broker.simulate.scheme import Turn
from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.train.trainer import LocalRound
from edgeclient.wire import frame
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import Frame, Origin
from edgeclient.wire.frame.header import Header, encode_header, read_header
from edgeclient.wire.messages import FRAME, check_prefix
from edgeclient.wire.reader import Reader, sealed, unsealed

_EPOCH: Final = 1


def origin(made: LocalRound, turn: Turn) -> Origin:
    """Where an update comes from."""
    asked = turn.announced
    return Origin(asked.task, turn.device, turn.layout.tag, turn.number, asked.version, made.num_examples, asked.ledger)


def write(content: bytes, made: LocalRound, turn: Turn) -> list[bytes]:
    """An update as one message, however long."""
    head = encode_header(Header.of(origin(made, turn), turn.layout.size, 0))
    return [frame.stamp(sealed(head + content), epoch=_EPOCH, sequence=turn.number)]


def opened(body: bytes, layout: Layout) -> tuple[Header, Reader]:
    """Its header, and a reader of its content.

    Raises:
        WireError: it is no message, is damaged, or is of another layout.
    """
    check_prefix(body, FRAME)
    reader = Reader(unsealed(body))
    header = read_header(reader)
    if (header.size, header.layout_tag) != (layout.size, layout.tag):
        raise WireError("layout", f"{header.size} parameters of another layout than is known here")
    return header, reader


def floats(reader: Reader, count: int) -> F32:
    """The next `count` float32 numbers, checked."""
    return finite(np.frombuffer(reader.take(4 * count), "<f4").astype(np.float32))


def finite(numbers: F32) -> F32:
    """The numbers; WireError("value") unless all are finite."""
    if not np.isfinite(numbers).all():
        raise WireError("value", "a value is NaN or infinite")
    return numbers


def whole(header: Header, values: F32, layout: Layout) -> Frame:
    """An update that lists every coordinate (n,), but what travels as absolute values."""
    sent = np.ones(layout.size, np.bool_)
    sent[layout.domain.places] = False
    indices = np.flatnonzero(sent)
    return header.frame(SparseUpdate(layout.size, indices, FloatValues(values[indices])))
