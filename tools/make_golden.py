"""Write the golden vectors of wire version 1 into tests/golden: run once per version, in a commit of its own.

Existing files are left alone, since a published layout never changes its meaning.

    python -m tools.make_golden
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeclient.compress.feedback import compress_with_feedback
from edgeclient.compress.update import FloatValues, SparseUpdate
from edgeclient.wire import announcement, frame, messages, status
from edgeclient.wire.announcement import Announcement, Blob, Policy
from edgeclient.wire.messages import Hello, Receipt, Refusal
from edgeclient.wire.status import Status

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
ORIGIN = frame.Origin("har", "pi-7", bytes.fromhex("0011223344556677"), 11, 4, 320)
EPOCH = 0xFEDCBA9876543210


def float_update() -> SparseUpdate:
    """Values that no step grid can hold: denormal, tiny, extreme."""
    numbers = np.array([1e-45, -5e-41, 3.4e38, -1.0], np.float32)
    return SparseUpdate(1 << 40, np.array([0, 7, 1 << 33, (1 << 40) - 1]), FloatValues(numbers))


def step_update() -> SparseUpdate:
    """Every level from 0 to 12, both signs."""
    delta = np.zeros(5000, np.float32)
    delta[::50] = [(-1) ** i * 0.01 * 1.04**i for i in range(100)]
    return compress_with_feedback(delta, np.zeros(5000, np.float32), k=90, limit=16.0)[0]


def long_update() -> SparseUpdate:
    """More than one small frame holds."""
    delta = np.sin(np.arange(3000, dtype=np.float64) ** 2).astype(np.float32)
    return compress_with_feedback(delta, np.zeros(3000, np.float32), k=600)[0]


def frames(update: SparseUpdate, max_bytes: int) -> list[bytes]:
    """Stamped frames of an update, from sequence 5."""
    made = frame.encode_update(update, ORIGIN, max_bytes)
    return [frame.stamp(body, epoch=EPOCH, sequence=5 + i) for i, body in enumerate(made)]


def described(data: bytes) -> dict[str, Any]:
    """What a frame says, in plain numbers; floats in hexadecimal, so that no bit is lost."""
    made = frame.decode(data)
    fields = {name: getattr(made, name) for name in made.__slots__ if name != "update"}
    return {
        **fields,
        "layout_tag": made.layout_tag.hex(),
        "size": made.update.size,
        "indices": made.update.indices.tolist(),
        "values": [float(value).hex() for value in made.update.values.decoded()],
    }


def main() -> None:
    """Write what is not there yet."""
    receipt = Receipt(EPOCH, 6, 12, True, (7, 9), ((2, Refusal.STALE), (10, Refusal.CONFLICT)))
    announced = Announcement(
        "har", 41, "0123456789abcdef", Blob("ab" * 32, 20_000, 65_536), Blob("cd" * 32, 200_000, 65_536),
        "ef" * 32, 5000, scale_bits=20, value_limit=8.0, policy=Policy(0.05, 0.1, 2, 32, 7),
    )  # fmt: skip
    health = Status("online", "s1", "training", 41, 3, 1, 2, 0, 30, 1, 0, 4000, 90_000, 6000, 99_000)
    hello = Hello(EPOCH, 12, 6)
    vectors: dict[str, tuple[list[bytes], list[dict[str, Any]]]] = {}
    for name, made in [
        ("frame-float", frames(float_update(), 65_536)),
        ("frame-step", frames(step_update(), 65_536)),
        ("frame-parts", frames(long_update(), 256)),
    ]:
        vectors[name] = (made, [described(data) for data in made])
    vectors["hello"] = ([messages.encode_hello(hello)], [asdict(hello)])
    vectors["receipt"] = ([messages.encode_receipt(receipt)], [asdict(receipt)])
    vectors["announcement"] = ([announcement.encode(announced)], [asdict(announced)])
    vectors["status"] = ([status.encode(health)], [asdict(health)])
    FOLDER.mkdir(exist_ok=True)
    for name, (data, meanings) in vectors.items():
        path = FOLDER / f"v1-{name}.hex"
        if path.exists():
            print(f"{path.name} is there already")
            continue
        path.write_text("".join(each.hex() + "\n" for each in data))
        path.with_suffix(".json").write_text(json.dumps(meanings, indent=1) + "\n")


if __name__ == "__main__":
    main()
