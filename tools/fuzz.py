"""Feed the frame decoder what no device would send: `python -m tools.fuzz frames --count 1000000`.

Mutations of every kind of frame: flipped bits, cuts, extensions, splices, forged bytes and varints with the checksum
recomputed, junk behind a good header. Whatever comes, the decoder answers with a sound frame or a WireError, soon,
and within a bounded amount of memory. `frames-guided` lets atheris steer by coverage (pip install '.[fuzz]').
"""

import json
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np

from edgeclient.compress.accel import Accel
from edgeclient.compress.quantise import Mode, quantise
from edgeclient.compress.update import SparseUpdate
from edgeclient.wire import frame
from edgeclient.wire.errors import REASONS, WireError
from edgeclient.wire.frame.header import HEADER
from edgeclient.wire.frame.positions import Tensors
from edgeclient.wire.limits import MAX_FRAME_BYTES, MAX_SIZE
from edgeclient.wire.reader import sealed, unsealed, varint

GOLDEN = Path(__file__).parents[1] / "tests/golden"
TENSORS: Tensors = ((40, 48), (48, 20), (1, 48), (1, 1072))  # turned, related, vectors
SIZE = sum(rows * columns for rows, columns in TENSORS)
MODES: tuple[Mode, ...] = ("step", "float32", "bfloat16", "int8", "int4", "sign")
MEMORY = 64 << 20  # stated in FORMAT.md, section 1
SECONDS = 5.0
OUTCOMES = REASONS | {"decoded"}
_MEASURED_EVERY = 64
_COMPARED_EVERY = 1000  # the definition in Python takes its time
_ORIGIN = frame.Origin("har", "pi-7", b"tag4", 3, 4, 320)


def seeds() -> list[bytes]:
    """Frames of every value mode and position mode, without their checksums."""
    made = [bytes.fromhex(line) for path in sorted(GOLDEN.glob("v*-frame-*.hex")) for line in path.read_text().split()]
    rng = np.random.default_rng(0)
    for mode in MODES:
        for k, tensors in ((3, None), (200, TENSORS), (1500, TENSORS)):
            rows = np.flatnonzero(rng.random(SIZE) < np.tile([0.9, 0.1, 0.02, 0.3], SIZE // 4))
            indices = np.sort(rng.permutation(rows)[:k]).astype(np.int64)
            numbers = ((1 + rng.exponential(0.5, indices.size)) * rng.choice([-1, 1], indices.size)).astype(np.float32)
            update = SparseUpdate(
                SIZE, indices, quantise(numbers, 16.0, mode, runs=(indices.size // 2, indices.size - indices.size // 2))
            )
            for max_bytes in (MAX_FRAME_BYTES, 300):
                coding = frame.Coding(max_bytes, tensors)
                made += frame.encode_layers(update, _ORIGIN, coding, numbers[: 50 if k > 3 else 0])[0][:2]
    return [unsealed(each) for each in made]


def mutated(random: Random, corpus: Sequence[bytes]) -> bytes:
    """A message that is wrong somewhere; four of five have a right checksum."""
    body = bytearray(random.choice(corpus))
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(body)) if body else 0
        match random.randrange(10):
            case 0 | 1 if body:
                body[at] ^= 1 << random.randrange(8)
            case 2 if body:
                body[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, body[at] ^ 0xFF, random.randrange(256)))
            case 3:
                del body[at:]
            case 4:
                body += random.randbytes(random.choice((1, 2, 8, 300)))
            case 5:
                body[at:at] = varint(random.choice((0, 1, random.getrandbits(16), random.getrandbits(40), 2**62)))
            case 6:
                _forge_varint(random, body)
            case 7:
                other = random.choice(corpus)
                body[at:] = other[random.randrange(len(other)) :]
            case 8:
                del body[at : at + random.choice((1, 2, 9))]
            case _:
                body[at:] = random.randbytes(random.randrange(1, 400))
    return sealed(bytes(body)) if random.random() < 0.8 else bytes(body)


def _forge_varint(random: Random, body: bytearray) -> None:
    """Another number in the place of one of the varints behind the header."""
    if len(body) < 40:
        return
    at = HEADER.size
    for _ in range(random.randrange(12)):
        while at < len(body) - 1 and body[at] & 0x80:
            at += 1
        at = min(at + 1, len(body) - 1)
    end = at
    while end < len(body) - 1 and body[end] & 0x80:
        end += 1
    body[at : end + 1] = varint(random.choice((0, 1, 2, 255, 65535, random.getrandbits(20), MAX_SIZE, 2**62)))


def outcome(data: bytes, accel: Accel = "auto") -> str:
    """What becomes of a message: "decoded", or the reason why not; anything but a sound frame or a WireError raises."""
    try:
        made = frame.decode(data, TENSORS, accel=accel)
    except WireError as error:
        return error.reason
    update, decoded = made.update, made.update.values.decoded()
    k = update.indices.size
    assert 1 <= k <= min(update.size, 8 * len(data))
    assert update.size <= MAX_SIZE
    assert update.indices[0] >= 0
    assert update.indices[-1] < update.size
    assert (np.diff(update.indices) > 0).all()
    assert decoded.shape == (k,)
    assert np.isfinite(decoded).all()
    assert decoded.all()
    assert made.part < made.parts
    assert made.num_examples >= 1
    if (carried := made.absolute) is not None:
        assert made.part == 0
        assert 1 <= carried.values.size <= len(data) // 2
        assert np.isfinite(carried.values).all()
    return "decoded"


def run(count: int, seed: int) -> dict[str, Any]:
    """Decode `count` mutated frames and report.

    Raises:
        AssertionError, or whatever the decoder should not have raised; the message is in the exception's notes.
    """
    accel: Accel = "numba" if find_spec("numba") is not None else "numpy"
    random, corpus = Random(seed), seeds()  # noqa: S311 (mutations, no secrets)
    outcomes: Counter[str] = Counter()
    slowest, peak, start = 0.0, 0, time.perf_counter()
    for data in corpus:
        outcome(sealed(data), accel)  # compiles whatever is compiled
    for number in range(count):
        data = mutated(random, corpus)
        measured = number % _MEASURED_EVERY == 0
        if measured:
            tracemalloc.start()
        began = time.perf_counter()
        try:
            found = outcome(data, accel)
            took = time.perf_counter() - began
            assert found in OUTCOMES, found
            outcomes[found] += 1
            if measured:
                peak = max(peak, tracemalloc.get_traced_memory()[1])
            if number % _COMPARED_EVERY == 0:
                assert outcome(data, "numpy") == found, "the twins do not agree"
            assert took < SECONDS, f"{took:.1f} s"
            assert peak < MEMORY, f"{peak} bytes"
        except BaseException as error:
            error.add_note(f"message {number} of seed {seed}: {data.hex()}")
            raise
        finally:
            if measured:
                tracemalloc.stop()
        slowest = max(slowest, took if not measured else 0.0)
    return {
        "count": count,
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "slowest_ms": 1e3 * slowest,
        "peak_kib": peak / 1024,
        "outcomes": dict(outcomes.most_common()),
    }


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Feed decoders what no device would send."""


@cli.command()
@click.option("--count", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def frames(count: int, seed: int, *, as_json: bool) -> None:
    """Mutated frames, seeded.

    \b
    Example:
      python -m tools.fuzz frames --count 1000000 --seed 7
    """
    report = run(count, seed)
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        print(f"{key}: {value:.3f}" if isinstance(value, float) else f"{key}: {value}")


@cli.command("frames-guided")
@click.option("--count", default=100_000, show_default=True)
def frames_guided(count: int) -> None:
    """Frames that coverage of the decoder leads to.

    \b
    Example:
      python -m tools.fuzz frames-guided --count 200000
    """
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415 (an extra)

    corpus = seeds()

    def one(data: bytes) -> None:
        if len(data) >= 2:
            # The checksum is ours, and a good beginning of our choice: coverage cannot guess either.
            begin = corpus[data[0] % len(corpus)]
            outcome(sealed(begin[: data[1] % (len(begin) + 1)] + data[2:]))

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-runs={count}", "-max_len=512"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    try:
        cli.main(prog_name="python -m tools.fuzz", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
