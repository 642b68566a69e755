"""Golden vectors of everything but frames: the other messages, a bundle, bare streams of the context coder."""

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final, TypeAlias

import numpy as np

from edgeclient.bundle import archive, safetensors
from edgeclient.bundle.archive import EVAL, FORWARD, PARAMETERS, TRAINING
from edgeclient.bundle.domain import Bounds
from edgeclient.bundle.layout import Layout, Parameter
from edgeclient.bundle.manifest import Buffer, Manifest, Optimiser, Tensor
from edgeclient.compress.arrays import F32, I64, Bools
from edgeclient.wire import announcement, frame, messages, status
from edgeclient.wire.announcement import Announcement, Blob, Policy
from edgeclient.wire.frame import context
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.messages import Hello, Receipt, Refusal, Withdraw
from edgeclient.wire.status import Status

Vector: TypeAlias = list[tuple[bytes, dict[str, Any]]]
# Rows, columns, positions, signs, levels, grades of rows and columns.
Stream: TypeAlias = tuple[int, int, I64, Bools, Any, Any]
EPOCH: Final = 0xFEDCBA9876543210


def plain(value: Any) -> Any:
    """A dataclass as JSON gives it back; bytes in hexadecimal."""
    return json.loads(json.dumps(asdict(value), default=bytes.hex))


def described(data: bytes, tensors: Tensors | None) -> dict[str, Any]:
    """What a frame says, in plain numbers; floats in hexadecimal, so that no bit is lost."""
    made = frame.decode(data, tensors)
    fields = {name: getattr(made, name) for name in made.__slots__ if name not in {"update", "absolute"}}
    carried = made.absolute
    return {
        **fields,
        **({"absolute": [carried.first, [float(each).hex() for each in carried.values]]} if carried else {}),
        **({"tensors": tensors} if tensors else {}),
        "layout_tag": made.layout_tag.hex(),
        "size": made.update.size,
        "indices": made.update.indices.tolist(),
        "values": [float(value).hex() for value in made.update.values.decoded()],
    }


def said() -> dict[str, Vector]:
    """The messages that are no frames."""
    hello = Hello(EPOCH, 12, 6, "fedcba9876543210")
    withdraw = Withdraw(
        0x0123456789ABCDEF, ((2, sha256(b"a").digest()[:8]), (5, sha256(b"b").digest()[:8])), "fedcba9876543210"
    )
    refused = ((2, Refusal.STALE), (10, Refusal.CONFLICT))
    receipt = Receipt(EPOCH, 6, 12, (10, bytes(range(8))), (7, 9), refused)
    announced = Announcement(
        task="har",
        version=41,
        service="0123456789abcdef",
        ledger="fedcba9876543210",
        term=7,
        parameters=Blob("ab" * 32, 20_000, 65_536),
        bundle=Blob("cd" * 32, 200_000, 65_536),
        layout="ef" * 32,
        size=5000,
        scale_bits=20,
        value_limit=8.0,
        succeeds=("0011223344556677",),
        policy=Policy(density=0.05, learning_rate=0.1, local_epochs=2, batch_size=32, max_staleness=7, steady=True),
    )
    health = Status(
        "online", "s1", note="training", version=41, rounds=3, queued=1, sent=2, applied=30, refused=1, up_bytes=4000,
        down_bytes=90_000, socket_sent=6000, socket_received=99_000, doing="training", battery_percent=80,
        temperature_c=41.5,
    )  # fmt: skip
    return {
        "hello": [(messages.encode_hello(hello), plain(hello))],
        "withdraw": [(messages.encode_withdraw(withdraw), plain(withdraw))],
        "receipt": [(messages.encode_receipt(receipt), plain(receipt))],
        "announcement": [(announcement.encode(announced), plain(announced))],
        "status": [(status.encode(health), plain(health))],
    }


def bundle() -> Vector:
    """A small one of each kind of file; the graphs are no graphs, since readers of bundles do not look inside."""
    arrays: dict[str, F32] = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3) * np.float32(0.25),
        "b": np.full(3, -1, np.float32),
        "mean": np.zeros(3, np.float32),
        "var": np.full(3, 0.5, np.float32),
        "own": np.ones(2, np.float32),
    }
    shared = Buffer("mean", (3,), "shared"), Buffer("var", (3,), "shared")
    bounded = Parameter("mean", (3,), Bounds()), Parameter("var", (3,), Bounds(low=0.0))
    manifest = Manifest(
        Layout((Parameter("w", (2, 3)), Parameter("b", (3,), Bounds(-1.5, 0.25)), *bounded)),
        (Tensor("x", "float32", (-1, 2)),),
        Tensor("labels", "int64", (-1,)),
        3,
        loss="cross_entropy",
        optimiser=Optimiser("adamw", weight_decay=0.5),
        licence="CC0-1.0",
        provenance="a golden vector",
        buffers=(*shared, Buffer("own", (2,), "local")),
        ignored=-100,
        operators=17,
    )
    files = {TRAINING: b"graph", EVAL: b"graph", FORWARD: b"model", PARAMETERS: safetensors.encode(arrays)}
    data = archive.encode(manifest, files)
    opened = archive.decode(data)
    meaning = {
        "manifest": {**plain(opened.manifest), "layout": opened.manifest.layout.as_json()},
        "layout": opened.manifest.layout.digest,
        "parameters": opened.parameters.tolist(),
        "files": {name: content.hex() for name, content in opened.files.items()},
    }
    return [(data, meaning)]


def streams() -> list[Stream]:
    """Busy in columns, in rows with signs in common, nearly everywhere, hardly anywhere; and a row of values."""
    rows, columns = np.divmod(np.arange(48 * 20), 20)
    busy = np.flatnonzero(np.isin(columns, [3, 4, 11]) | (rows % 16 == 5))
    ties = np.flatnonzero((rows + columns) % 3 == 0)
    wave = np.arange(200)
    of_rows = (np.arange(48) % 16 == 5) * 4 + np.arange(48) // 12
    of_columns = np.isin(np.arange(20), [3, 4, 11]) * 7
    return [
        (48, 20, busy, np.sin(busy) > 0, busy % 5 // 2, (of_rows, of_columns)),
        (48, 20, ties, (rows + columns // 7)[ties] // 3 % 2 > 0, ties % 13, (np.zeros(48), np.zeros(20))),
        (20, 48, np.delete(np.arange(960), [0, 77, 78, 500, 959]), np.arange(955) % 9 < 4, np.zeros(955), None),
        (7, 9, np.array([31]), np.array([True]), np.array([12]), None),
        (1, 200, wave, wave // 25 % 2 > 0, (wave % 40 < 9) * 2, None),
    ]


def long_streams() -> list[Stream]:
    """Over 4096 rows or columns, most of them empty; rows of over 32 entries with signs in common."""
    places = np.concatenate([np.arange(90), 700 + np.arange(40) * 3, 8300 + np.arange(30) * 2, [8399]])
    rows, columns = np.divmod(np.arange(60 * 40), 40)
    ties = np.flatnonzero((rows + columns) % 17 > 0)
    return [
        (4200, 2, places, places % 3 > 0, places % 13, None),
        (1, 8400, places, places % 3 > 0, places % 13, None),
        (60, 40, ties, (rows + columns // 7)[ties] // 3 % 2 > 0, ties % 3, (np.zeros(60), np.zeros(40))),
    ]


def coded(cases: list[Stream]) -> Vector:
    """The bytes of streams, and what they hold."""
    made: Vector = []
    for height, width, indices, negative, levels, activity in cases:
        known = None if activity is None else (activity[0].astype(np.uint8), activity[1].astype(np.uint8))
        data = context.encode(height, width, indices, negative, levels.astype(np.uint8), known, accel="numpy")
        meaning = {
            "rows": height,
            "columns": width,
            "activity": known and [each.tolist() for each in known],
            "indices": indices.tolist(),
            "negative": negative.astype(int).tolist(),
            "levels": levels.astype(int).tolist(),
        }
        made.append((data, meaning))
    return made


def vectors() -> dict[str, Vector]:
    """All of them, by name."""
    return {**said(), "bundle": bundle(), "context": coded(streams()), "context-long": coded(long_streams())}
