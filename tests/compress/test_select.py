"""Selection: both backends are the definition bit for bit, whatever the guess, the blocks and the numbers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgeclient.compress import _select_numba, select
from edgeclient.compress.accel import Accel
from edgeclient.compress.arrays import F32, I64
from edgeclient.compress.feedback import NotFinite, compress, compress_with_feedback
from edgeclient.compress.update import LARGEST

ROOT = Path(__file__).parents[2]
BACKENDS: tuple[Accel, ...] = ("numpy", "numba")
BOTH = pytest.mark.parametrize("accel", BACKENDS)
# Few different magnitudes, so that ties, zeros, denormals and the ends of the range meet.
NUMBERS = [0.0, -0.0, 1.0, -1.0, 1.5, -1.5, 2.0, 1e-45, -1e-45, 5e-41, -1e-38, 1e38, -1e38]
GUESSES = st.sampled_from([0.0, 1e-45, 1e-30, 0.5, 1.0, 1.05, 1.5, 2.5, 1e38, 3.4e38, float(LARGEST)])


def definition(x: F32, k: int) -> I64:
    """Largest magnitude first, ties to the lower index, zeros never; then ascending."""
    order = np.lexsort((np.arange(x.size), -np.abs(x.astype(np.float64))))[:k]
    return np.sort(order[x[order] != 0])


def same_bits(one: F32, other: F32) -> bool:
    return one.dtype == other.dtype and np.array_equal(one.view(np.int32), other.view(np.int32))


def check(delta: F32, residual: F32, k: int, guess: float, accel: Accel) -> None:
    """Compensated vector, indices, values and threshold are those of the definition."""
    x = np.full(delta.size, np.nan, np.float32)
    made = select.select(x, k, total_of=(delta, residual), last_threshold=guess, accel=accel)
    assert made is not None
    assert same_bits(x, delta + residual)
    wanted = definition(x, k)
    assert made.indices.dtype == np.int64
    assert np.array_equal(made.indices, wanted)
    assert same_bits(made.values, x[wanted])
    assert made.threshold == (np.abs(x[wanted]).min() if wanted.size else 0)
    again = select.select(x, k, last_threshold=guess, accel=accel)
    assert again is not None
    assert np.array_equal(again.indices, wanted)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The NumPy sweep in blocks of 16, so that short vectors have many."""
    monkeypatch.setattr(select, "_BLOCK", 16)


@st.composite
def vectors(draw: st.DrawFn) -> tuple[F32, F32]:
    size = draw(st.integers(0, 200))
    elements = st.sampled_from(NUMBERS) | st.floats(-(2.0**120), 2.0**120, width=32)
    delta, residual = (draw(arrays(np.float32, size, elements=elements, fill=st.sampled_from(NUMBERS))) for _ in "ab")
    return delta, residual


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=400, deadline=None)
@given(vectors(), st.integers(0, 210), GUESSES)
@example((np.zeros(100, np.float32), np.zeros(100, np.float32)), 7, 1.0)
@example((np.ones(100, np.float32), np.zeros(100, np.float32)), 7, 0.0)
@example((np.arange(100, dtype=np.float32), np.zeros(100, np.float32)), 1, 0.0)
@example((np.full(100, 1e-45, np.float32), np.full(100, -1e-45, np.float32)), 3, 1e-45)
def test_every_guess_gives_the_definition(vectors: tuple[F32, F32], k: int, guess: float) -> None:
    for accel in BACKENDS:
        check(*vectors, k, guess, accel)


def mixed(n: int, seed: int) -> tuple[F32, F32]:
    """Normal numbers of very different sizes, with ties and zeros."""
    rng = np.random.default_rng(seed)
    delta, residual = (rng.standard_normal(n).astype(np.float32) for _ in "ab")
    delta[::5] = np.round(delta[::5], 1)
    residual[::5] = 0
    delta[::977] *= np.float32(1e-42)
    residual[::977] = 0
    delta[::3], residual[::3] = 0, 0
    delta[n // 2 : n // 2 + 50] = 1e38
    return delta, residual


@BOTH
@pytest.mark.parametrize(
    "n", [_select_numba.BLOCK - 1, _select_numba.BLOCK, _select_numba.BLOCK + 1, 3 * _select_numba.BLOCK, 100_003]
)
def test_sizes_around_the_blocks(n: int, accel: Accel) -> None:
    delta, residual = mixed(n, n)
    for k in (1, 50, n // 1000, n // 20, n // 2, n - 1, n, n + 9):
        threshold = compress(delta, residual, k, accel=accel).threshold
        for factor in (0.0, 0.3, 0.95, 1.0, 1.2, 1e9):
            check(delta, residual, k, threshold * factor, accel)


@BOTH
@pytest.mark.parametrize("order", ["ascending", "descending", "equal", "sawtooth"])
def test_orders_that_overflow_the_candidates(order: str, accel: Accel) -> None:
    n = 6 * _select_numba.BLOCK + 5
    rising = np.linspace(1, 2, n, dtype=np.float32)
    delta = {
        "ascending": rising,
        "descending": rising[::-1].copy(),
        "equal": np.ones(n, np.float32),
        "sawtooth": np.tile(rising[:1000], n // 1000 + 1)[:n],
    }[order]
    for k in (1, 100, 5000):
        for guess in (0.0, 1e-20, 1.0, 1.9):
            check(delta, np.zeros_like(delta), k, guess, accel)


def test_the_backends_agree_on_a_million() -> None:
    delta, residual = mixed(1_000_000, 3)
    delta[delta > 1e30] = 0  # a few times that would be infinite
    threshold = 0.0
    for _ in range(4):
        one, two = (compress(delta, residual, 5000, accel=each, last_threshold=threshold) for each in BACKENDS)
        assert np.array_equal(one.update.indices, two.update.indices)
        assert same_bits(one.update.values.decoded(), two.update.values.decoded())
        assert same_bits(one.residual, two.residual)
        assert one.threshold == two.threshold
        residual, threshold = one.residual, one.threshold


# Error feedback around it


@BOTH
def test_the_threshold_goes_from_round_to_round(accel: Accel) -> None:
    rng = np.random.default_rng(1)
    residual, threshold = np.zeros(150_000, np.float32), 0.0
    for _ in range(5):
        delta = rng.standard_normal(residual.size).astype(np.float32)
        plain, _ = compress_with_feedback(delta, residual, 700, accel=accel)
        made = compress(delta, residual, 700, accel=accel, last_threshold=threshold)
        assert np.array_equal(made.update.indices, plain.indices)
        assert made.threshold == np.abs((delta + residual)[plain.indices]).min()
        assert made.threshold > threshold * 0.9
        residual, threshold = made.residual, made.threshold
    assert compress(np.zeros_like(residual), residual, 0, accel=accel, last_threshold=2.5).threshold == 2.5


@BOTH
@settings(max_examples=150, deadline=None)
@given(vectors(), st.integers(0, 210), GUESSES)
def test_nothing_is_lost_to_the_last_bit(accel: Accel, vectors: tuple[F32, F32], k: int, guess: float) -> None:
    """x = decoded + residual' in float32: exactly so where the difference is exact, else to its rounding."""
    delta, residual = vectors
    made = compress(delta, residual, k, accel=accel, last_threshold=guess)
    x = delta + residual
    wanted = x.copy()
    wanted[made.update.indices] -= made.update.values.decoded()
    assert same_bits(made.residual, wanted)
    assert not np.isin(np.flatnonzero(x == 0), made.update.indices).any()


@BOTH
def test_returned_entries_join_before_the_selection(accel: Accel) -> None:
    delta, residual = mixed(120_000, 5)
    back, _ = compress_with_feedback(*mixed(120_000, 6), 300)
    made = compress(delta, residual, 400, returned=[back, back], accel=accel, last_threshold=1.0)
    x = delta + residual
    back.add_to(x)
    back.add_to(x)
    assert np.array_equal(made.update.indices, definition(x, 400))
    x[made.update.indices] -= made.update.values.decoded()
    assert same_bits(made.residual, x)


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan])
@pytest.mark.parametrize("k", [0, 3, 40_000])
def test_what_is_not_finite_is_refused(bad: float, k: int, accel: Accel) -> None:
    delta, residual = mixed(100_000, 7)
    for places in ([0], [16_384, 99_999], [99_999], list(range(100_000))):
        broken = delta.copy()
        broken[places] = bad
        before = residual.copy()
        for guess in (0.0, 1.0, 3e38):
            with pytest.raises(NotFinite, match=f"coordinate {places[0]}$"):
                compress(broken, residual, k, accel=accel, last_threshold=guess, out=np.empty_like(delta))
        assert same_bits(residual, before)
    with pytest.raises(ValueError, match="NaN or infinity"):
        select.top_k(np.array([1, bad], np.float32), 1, accel=accel)


@BOTH
def test_a_sum_that_overflows_is_refused(accel: Accel) -> None:
    delta = np.ones(100_000, np.float32)
    delta[77_777] = LARGEST
    with pytest.raises(NotFinite, match="coordinate 77777"):
        compress(delta, delta, 5, accel=accel)


def mapped(path: Path, numbers: F32, mode: Any) -> F32:
    numbers.tofile(path)
    return np.memmap(path, np.float32, mode)


@BOTH
def test_files_go_in_and_out(tmp_path: Path, accel: Accel) -> None:
    delta, residual = mixed(200_000, 8)
    back, _ = compress_with_feedback(*mixed(200_000, 9), 300)
    wanted = compress(delta, residual, 900, returned=[back])
    files = [mapped(tmp_path / "delta", delta, "r"), mapped(tmp_path / "0", residual, "r")]
    out = mapped(tmp_path / "1", np.full_like(delta, np.nan), "r+")
    made = compress(files[0], files[1], 900, returned=[back], accel=accel, out=out)
    assert made.residual is out
    assert np.array_equal(made.update.indices, wanted.update.indices)
    assert isinstance(out, np.memmap)
    out.flush()
    assert (tmp_path / "0").read_bytes() == residual.tobytes()
    assert (tmp_path / "1").read_bytes() == wanted.residual.tobytes()


def test_vectors_that_do_not_fit() -> None:
    ones = np.ones(5, np.float32)
    frozen = ones.copy()
    frozen.flags.writeable = False
    for out, said in [
        (np.ones(6, np.float32), "shapes"),
        (np.ones(5), "float32"),
        (np.ones(10, np.float32)[::2], "contiguous"),
        (frozen, "writeable"),
        (ones, "overwrite"),
    ]:
        with pytest.raises(ValueError, match=said):
            compress(ones, ones + 1, 2, out=out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes"):
        compress(ones, np.ones(4, np.float32), 2)
    with pytest.raises(ValueError, match="negative"):
        compress(ones, ones, -1)
    odd = np.frombuffer(b"\0" + ones.tobytes() * 40_000, np.float32, offset=1)  # aligned to nothing
    assert select.top_k(odd, 3, accel="numba").tolist() == [0, 1, 2]


def test_a_generic_cpu_selects_the_same() -> None:
    code = (
        "import numpy as np, hashlib; from edgeclient.compress.feedback import compress;"
        "x = np.random.default_rng(0).standard_normal((2, 200_000)).astype(np.float32);"
        "made = compress(x[0], x[1], 2000, accel='numba', last_threshold=3.0);"
        "print(hashlib.sha256(made.update.indices.tobytes() + made.residual.tobytes()).hexdigest())"
    )
    environment = {"PATH": "", "NUMBA_CPU_NAME": "generic"}
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=each, capture_output=True, text=True, check=True
        ).stdout
        for each in (environment, {"PATH": ""})
    }
    assert len(answers) == 1


# Commands


def measured(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tools.bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_the_select_benchmark(tmp_path: Path) -> None:
    said = measured("select", "--n", "5000", "--n", "200000", "--density", "0.01", "--out", str(tmp_path))
    keys = "n density ours_ms limit_ms numpy_ms torch_ms over_limit over_numpy backend"
    assert [row["backend"] for row in said["rows"]] == ["numpy", "numba"]
    assert all(set(keys.split()) <= row.keys() for row in said["rows"])
    assert (tmp_path / "select.png").stat().st_size > 1000


def test_the_scale_benchmark(tmp_path: Path) -> None:
    said = measured("scale", "--n", "300001", "--dir", str(tmp_path), "--out", str(tmp_path))
    assert {"n", "seconds", "fsync_seconds", "extra_rss_mib", "frames", "frame_bytes"} <= said.keys()
    assert (said["entries"], said["frames"]) == (301, 1)
    assert [each.name for each in tmp_path.iterdir()] == ["scale.png"]
