"""Golden vectors at the edge of the format: what readers take though no writer makes it, and what they refuse."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final, TypeAlias

import numpy as np

from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.archive import PARAMETERS
from edgeclient.bundle.manifest import MANIFEST
from edgeclient.wire import announcement, messages, status
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import context, rice
from edgeclient.wire.frame.codes import Code
from edgeclient.wire.frame.header import ABSOLUTE, HEADER, PART, SIGNED, TENSORS
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.frame.write_values import FLOAT32, INT4, INT8, SIGN, STEP
from edgeclient.wire.limits import FRAME_VERSION
from edgeclient.wire.messages import FRAME, MAGIC
from edgeclient.wire.reader import sealed, unsealed, varint
from tools.golden_messages import Vector, bundle, described, plain, said

# Kind of message, what is odd about it, its bytes, the tensors of its layout.
Case: TypeAlias = tuple[str, str, bytes, Tensors | None]
DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "hello": messages.decode_hello,
    "withdraw": messages.decode_withdraw,
    "receipt": messages.decode_receipt,
    "announcement": announcement.decode,
    "status": status.decode,
    "bundle": archive.decode,
}
# One entry of ten, at 3, coded with two bits: its segment, and the pool behind it.
AT_3, POOL = b"\x02\x01", b"\x01\x03\x00"
AT_0, HALF_AT_0 = b"\x00\x01\x01\x00", b"\x00\x01\x80\x3f"
FLOAT, HALF, HUGE = b"\x00\x00\x80\x3f", b"\x80\x3f", b"\x00\x7f"  # 1.0 in two formats, 2^127
TWO: Final[Tensors] = [(5, 2), (1, 2)]


def meaning(of: str, data: bytes, tensors: Tensors | None = None) -> dict[str, Any]:
    """What a message says, in plain values; WireError as its decoder."""
    return described(data, tensors) if of == "frame" else plain(DECODERS[of](data))


def framed(mode: int, body: bytes, *, flags: int = 0, size: bytes = b"\x0a", version: int = FRAME_VERSION) -> bytes:
    """A frame of one example; `size` is a varint, and what else stands in the header behind it."""
    header = HEADER.pack(MAGIC, version, FRAME, mode << 4 | flags, 0, b"tag4", 0, 0)
    return sealed(header + b"\x01\x01\x01" + size + body)


def streamed(
    mode: int, entry: tuple[int, bool, int], behind: bytes, *, rows: int = 5, size: bytes = b"\x0c", form: bytes = b""
) -> bytes:
    """A frame of one entry in a stream over the first of two tensors; `behind` is its grid, or else its number."""
    position, negative, level = (np.array([each]) for each in entry)
    grades = np.zeros(rows, np.uint8), np.zeros(2, np.uint8)
    stream = context.encode(rows, 2, position, negative, level.astype(np.uint8), grades, accel="numpy")
    grid, numbers = (b"", behind) if mode == FLOAT32 else (behind + form, b"")
    body = b"\x01\x40\x01" + varint(rows) + varint(len(stream)) + grid + stream + numbers
    return framed(mode, body, flags=TENSORS | (PART if len(size) > 1 else 0), size=size)


def odd() -> Iterator[Case]:
    """What is taken."""
    yield "frame", "a number over the largest float32 is that", framed(INT8, AT_3 + HUGE + HUGE + POOL + b"\x7f"), None
    levels = b"\x01\x00" * 12
    body = AT_3 + HUGE + b"\x00" + levels + b"\x02\x03\x00\x00" + b"\x01"
    yield "frame", "so is a level of a step grid", framed(STEP, body), None
    part = b"\x24\x01\x02\x20\x04"
    body = b"\x01\x00\x02\x01\x06" + FLOAT + FLOAT
    nine: Tensors = [(1, 4)] * 9
    yield "frame", "the part touches one tensor of nine", framed(0, body, flags=PART | TENSORS, size=part), nine
    thirds = Code(0, thirds=True)
    pool = rice.encode([(np.array(each), thirds) for each in ([1, 4, 9], [2, 5, 30], [1, 4])])
    body = b"\x03\x20\x03\x20\x03" + HALF + b"\x00\x02\x20\x00" + pool + b"\x15" + HALF + HALF
    yield "frame", "three sets with thirds", framed(STEP, body, flags=TENSORS, size=b"\x50"), [(1, 40), (1, 40)]
    stale, future = messages.Refusal.STALE, messages.Refusal.FUTURE
    receipt = messages.Receipt(1, 5, 9, None, (7, 2, 2), ((8, stale), (3, stale), (8, future)))
    yield "receipt", "sequences in any order, twice, below the watermark", messages.encode_receipt(receipt), None
    text = {"state": "online", "session": "s", "doing": "dancing", "note": "é" * 199 + "😀😀", "software": "\ud800"}
    data = json.dumps({**text, "temperature_c": 41, "later": [None]}, indent=1).encode()
    yield "status", "a long note, another word, a lone surrogate, an unknown key", data, None
    ((line, _),) = said()["announcement"]
    data = json.dumps({**json.loads(line), "wire": [0, 1, 7], "policy": {}, "later": {}}).encode() + b"\n\xff"
    yield "announcement", "spaces, unknown keys, other versions too, a second line", data, None


def refused() -> Iterator[Case]:
    """What is refused."""
    for why, data in [
        ("version 2", framed(0, AT_3 + POOL + FLOAT, version=2)),
        ("signed", framed(0, AT_3 + POOL + FLOAT, flags=SIGNED)),
        ("no absolute values", framed(0, b"\x01\x00" + AT_3 + POOL + FLOAT, flags=ABSOLUTE)),
        ("an absolute value that is infinite", framed(0, b"\x01\x01\x80\x7f" + AT_3 + POOL + FLOAT, flags=ABSOLUTE)),
        ("one that is NaN", framed(0, b"\x01\x01\xc0\x7f" + AT_3 + POOL + FLOAT, flags=ABSOLUTE)),
        ("more absolute values than numbers", framed(0, b"\x00\x0b" + AT_3 + POOL + FLOAT, flags=ABSOLUTE)),
        ("more than bytes", framed(0, b"\x00\xff\xff\x7f" + AT_3 + POOL, flags=ABSOLUTE, size=varint(1 << 40))),
        (
            "absolute values in a second part",
            framed(0, HALF_AT_0 + AT_0 + FLOAT, flags=PART | ABSOLUTE, size=b"\x0a\x01\x02\x03\x01"),
        ),
        ("value mode 6", framed(6, AT_3 + POOL + FLOAT)),
        ("a checksum of other bytes", framed(0, AT_3 + POOL + FLOAT)[:-1] + b"\x00"),
        ("a varint in a longer form", framed(0, AT_3 + POOL + FLOAT, size=b"\x8a\x00")),
        ("a varint of 10 bytes", framed(0, AT_3 + POOL + FLOAT, size=b"\x8a" + b"\x80" * 8 + b"\x01")),
        ("a part of one", framed(0, AT_3 + POOL + FLOAT, flags=PART, size=b"\x0a\x00\x01\x03\x01")),
        ("the third part of two", framed(0, AT_3 + POOL + FLOAT, flags=PART, size=b"\x0a\x02\x02\x03\x01")),
        ("a part that begins before its entry", framed(0, AT_3 + POOL + FLOAT, flags=PART, size=b"\x0a\0\2\0\4")),
        ("position mode 3", framed(0, b"\xc2\x01" + POOL + FLOAT)),
        ("a stream without flag tensors", framed(0, b"\x40\x01\x01\x01\x00" + FLOAT)),
        ("no entries", framed(0, b"\x02\x00")),
        ("a code for no absent coordinates", framed(0, b"\x81\x00" + FLOAT * 10)),
        ("padding behind remainders", framed(0, AT_3 + b"\x01\x07\x00" + FLOAT)),
        ("quotients of one byte too many", framed(0, AT_3 + b"\x02\x03\x00\x00" + FLOAT)),
        ("a position behind the range", framed(0, AT_3 + b"\x01\x03\x07" + FLOAT)),
        ("a byte behind the end", framed(0, AT_3 + POOL + FLOAT + b"\x00")),
        ("zero", framed(0, AT_3 + POOL + bytes(4))),
        ("infinity", framed(0, AT_3 + POOL + b"\x00\x00\x80\x7f")),
        ("a grid of sign bit 1", framed(INT8, AT_3 + HALF + b"\x00\x80" + POOL + b"\x00")),
        ("a magnitude below 2^-110", framed(SIGN, AT_3 + b"\x00\x08" + POOL + b"\x00")),
        ("half a byte too many", framed(INT4, AT_3 + HALF + HALF + POOL + b"\x10")),
        ("form bit 2", framed(STEP, AT_3 + HALF + b"\x04\x00" + POOL + b"\x00" + HALF)),
        ("a set larger than the one before", framed(STEP, AT_3 + HALF + b"\x00\x02" + POOL + b"\x00" + HALF)),
        ("a level with a position mode", framed(STEP, AT_3 + HALF + b"\x00\x01\x80" + POOL + b"\x00" + HALF)),
        ("a centroid below the step", framed(STEP, AT_3 + HALF + b"\x00\x00" + POOL + b"\x00" + b"\x7f\x3f")),
        ("no run", framed(STEP, AT_3 + HALF + b"\x01\x00" + POOL + b"\x00\x00")),
        ("an empty run", framed(STEP, AT_3 + HALF + b"\x01\x00" + POOL + b"\x00\x02\x00" + HALF)),
        ("more than 8 entries a byte", crowded()),
    ]:
        yield "frame", why, data, None
    yield "frame", "tensors of a layout that is not known", streamed(FLOAT32, (6, False, 0), FLOAT), None
    part = b"\x0c\x00\x02\x01\x02"
    for why, data in [
        ("no tensor has entries", framed(0, b"\x00", flags=TENSORS, size=b"\x0c")),
        ("a third of two tensors", framed(0, b"\x04", flags=TENSORS, size=b"\x0c")),
        ("a stream with a code", framed(0, b"\x01\x41\x01\x01\x01\x00" + FLOAT, flags=TENSORS, size=b"\x0c")),
        ("six rows of five", framed(0, b"\x01\x40\x01\x06\x01\x00" + FLOAT, flags=TENSORS, size=b"\x0c")),
        ("a sign beside one of the value", streamed(FLOAT32, (6, True, 0), FLOAT)),
        ("a level beside the value", streamed(FLOAT32, (6, False, 1), FLOAT)),
        ("a level beside signs", streamed(SIGN, (6, False, 1), HALF)),
        ("an entry before the range", streamed(FLOAT32, (0, False, 0), FLOAT, rows=2, size=part)),
        ("a row behind the range", streamed(FLOAT32, (1, False, 0), FLOAT, rows=3, size=part)),
        ("form row without plain entries", streamed(STEP, (6, False, 0), HALF, form=b"\x02\x00" + HALF)),
        ("a stream with a byte too many", longer(unsealed(streamed(FLOAT32, (6, False, 0), FLOAT)))),
    ]:
        yield "frame", why, data, TWO
    body = b"\x01\x40\x01" + varint(2000) + b"\x01\x00" + FLOAT
    data = framed(0, body, flags=TENSORS, size=varint(2_000_000))
    yield "frame", "over 2^20 positions in streams", data, [(2000, 1000)]
    yield from short_messages()
    yield from texts()
    yield from bundles()


def crowded() -> bytes:
    """Entries that take less than a bit each: all of 5000, positive, of level 0, in form row."""
    n = 5000
    row = context.encode(1, n, np.arange(n), np.zeros(n, np.bool_), np.zeros(n, np.uint8), accel="numpy")
    return framed(STEP, b"\x80\x00" + HALF + b"\x02" + varint(len(row)) + row + HALF, size=varint(n))


def longer(sound: bytes) -> bytes:
    """The frame with a zero byte behind its stream, which is counted."""
    at = HEADER.size + 4 + 4
    assert sound[at] == len(sound) - at - 5
    return sealed(sound[:at] + bytes([sound[at] + 1]) + sound[at + 1 : -4] + b"\x00" + sound[-4:])


def short_messages() -> Iterator[Case]:
    """HELLO, WITHDRAW and RECEIPT."""
    yield "hello", "more is settled than is assigned", messages.encode_hello(messages.Hello(1, 2, 3)), None
    digest = bytes(8)
    frames = ((5, digest), (5, digest))
    yield "withdraw", "a sequence twice", messages.encode_withdraw(messages.Withdraw(1, frames)), None
    one = unsealed(messages.encode_withdraw(messages.Withdraw(1, frames[:1])))
    yield "withdraw", "of nothing", sealed(one[:12] + b"\x00\x00"), None
    receipt = messages.encode_receipt(messages.Receipt(1, 2, 3, None, (2,), ((1, messages.Refusal.STALE),)))
    for why, at, byte in [
        ("a watermark above what was seen", 12, 4),
        ("an applied sequence that was not seen", 25, 3),
        ("a refused sequence that was not seen", 29, 3),
        ("code 10", 33, 10),
        ("flag 1", 20, 2),
        ("a kind of another message", 3, 2),
    ]:
        body = bytearray(unsealed(receipt))
        body[at] = byte
        yield "receipt", why, sealed(bytes(body)), None


def texts() -> Iterator[Case]:
    """Announcements and statuses."""
    ((line, _),) = said()["announcement"]
    ((told, _),) = said()["status"]
    changes: list[tuple[str, bytes, str, dict[str, Any]]] = [
        ("announcement", line, "another format", {"format": 2}),
        ("announcement", line, "none of our frame versions", {"wire": [2]}),
        ("announcement", line, "a version as a string", {"wire": [1, "2"]}),
        ("announcement", line, "a limit that is no power of two", {"value_limit": 3}),
        ("announcement", line, "parameters of another size", {"size": 4999}),
        ("announcement", line, "null for a policy's number", {"policy": {"density": None}}),
        ("status", told, "another state", {"state": "asleep"}),
        ("status", told, "a fraction for an integer", {"rounds": 3.0}),
        ("status", told, "true for an integer", {"rounds": True}),
        ("status", told, "null for what is not known", {"battery_percent": None}),
        ("status", told, "over a limit", {"battery_percent": 101}),
    ]
    for of, data, why, change in changes:
        yield of, why, json.dumps({**json.loads(data), **change}).encode(), None
    yield "status", "a key twice", told[:-1] + b',"state":"online"}', None
    yield "status", "a byte-order mark", b"\xef\xbb\xbf" + told, None
    yield "status", "no JSON", told[:-1] + b',"later":NaN}', None
    yield "status", "infinity", told[:-1] + b',"residual_norm":1e999}', None


def bundles() -> Iterator[Case]:
    """Bundles around the golden one."""
    ((whole, _),) = bundle()
    files = dict(archive.decode(whole).files)
    yield "bundle", "no zip", b"no zip", None
    yield "bundle", "compressed", zipped(files, zipfile.ZIP_DEFLATED), None
    yield "bundle", "a file that the manifest does not name", zipped({**files, "more": b""}), None
    yield "bundle", "a name in capitals", zipped({**files, "More": b""}), None
    yield "bundle", "other bytes than the manifest says", zipped({**files, "eval.onnx": b"GRAPH"}), None
    manifest = json.loads(files[MANIFEST])
    changes: list[tuple[str, dict[str, Any]]] = [
        ("another format", {"format": 2}),
        ("a key too many in an optimiser", {"optimiser": {**manifest["optimiser"], "nesterov": True}}),
        ("an unknown optimiser", {"optimiser": {**manifest["optimiser"], "name": "lion"}}),
        ("another layout than its digest", {"layout": "0" * 64}),
        ("float labels of classes", {"labels": {**manifest["labels"], "dtype": "float32"}}),
        ("a bound that is no bfloat16 number", _bounded(manifest, [0.1, None])),
        ("bounds with nothing between", _bounded(manifest, [1.0, 0.5])),
        ("an infinite bound", _bounded(manifest, [1e300, None])),
        ("a shared running statistic without bounds", _bounded(manifest)),
    ]
    for why, change in changes:
        yield "bundle", why, zipped({**files, MANIFEST: json.dumps({**manifest, **change}).encode()}), None
    arrays = safetensors.decode(files[PARAMETERS])
    for why, old, new in [
        ("another type of numbers", b'"F32"', b'"F16"'),
        ("a gap between arrays", b"[24,36]", b"[28,36]"),
        ("a dimension of 0", b'"shape":[3]', b'"shape":[0]'),
    ]:
        yield "bundle", why, _with(files, manifest, safetensors.encode(arrays).replace(old, new, 1)), None
    negative = safetensors.encode({**arrays, "var": np.array([1, -0.25, 1], np.float32)})
    yield "bundle", "a running variance below 0", _with(files, manifest, negative), None


def _with(files: dict[str, bytes], manifest: dict[str, Any], parameters: bytes) -> bytes:
    """The bundle with other parameters."""
    described_ = {"size": len(parameters), "sha256": sha256(parameters).hexdigest()}
    listed = {**manifest, "files": {**manifest["files"], PARAMETERS: described_}}
    return zipped({**files, MANIFEST: json.dumps(listed).encode(), PARAMETERS: parameters})


def _bounded(manifest: dict[str, Any], *bounds: Any) -> dict[str, Any]:
    """A layout whose last tensor has these, and its digest."""
    *others, (name, shape, _) = manifest["parameters"]
    parameters = [*others, [name, shape, *bounds]]
    return {
        "parameters": parameters,
        "layout": sha256(json.dumps(parameters, separators=(",", ":")).encode()).hexdigest(),
    }


def zipped(files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content, how)
    return made.getvalue()


def reason(of: str, data: bytes, tensors: Tensors | None) -> str:
    """Why it is refused here."""
    try:
        meaning(of, data, tensors)
    except WireError as error:
        return error.reason
    raise AssertionError(f"{of} {data.hex()} is not refused")


def vectors() -> dict[str, Vector]:
    """Both, by name."""
    made: dict[str, Vector] = {"odd": [], "refused": []}
    for of, why, data, tensors in odd():
        about = {"of": of, "about": why, "tensors": tensors}
        made["odd"].append((data, {**about, "says": meaning(of, data, tensors)}))
    for of, why, data, tensors in refused():
        made["refused"].append(
            (data, {"of": of, "about": why, "tensors": tensors, "reason": reason(of, data, tensors)})
        )
    return made
