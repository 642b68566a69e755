"""What a command printed, or the last line of its complaint; and what pip is told of boards."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

PYTHON: Final = "3.13"  # of a Raspberry Pi with today's system
# For pip: wheels that such a board takes.
BOARD: Final = (
    f"--python-version={PYTHON}",
    "--implementation=cp",
    "--only-binary=:all:",
    *(f"--abi={abi}" for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")),
    *(f"--platform=manylinux{glibc}_aarch64" for glibc in ("_2_34", "_2_28", "_2_27", "_2_17", "2014")),
    "--platform=any",
)


def output(
    command: Sequence[str | Path],
    failed: type[Exception],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> str:
    """Standard output of a command that ends well; else `failed` with one line, TimeoutExpired after `limit_s`."""
    try:
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=limit_s)
    except FileNotFoundError:
        raise failed(f"{command[0]} is not installed") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise failed(f"{' '.join(map(str, command[:3]))} ...: {said[-1]}")
    return done.stdout


def work_tree_wheel(out: Path, failed: type[Exception]) -> Path:
    """The wheel of what lies in the work tree, made in the folder `out`."""
    output([Path(__file__).with_name("release"), "--work-tree", "--out", out], failed)
    (wheel,) = out.glob("edgeclient-*.whl")
    return wheel
