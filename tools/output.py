"""What a command printed, or the last line of its complaint."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def output(
    command: Sequence[str | Path],
    failed: type[Exception],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit_s: float | None = None,
) -> str:
    """Standard output of a command that ends well.

    Args:
        command: program and arguments.
        failed: raised with one line when it does not end well.
        cwd: its folder.
        env: instead of ours.
        limit_s: TimeoutExpired after this time.
    """
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=limit_s)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise failed(f"{' '.join(map(str, command[:3]))} ...: {said[-1]}")
    return done.stdout


def work_tree_wheel(out: Path, failed: type[Exception]) -> Path:
    """The wheel of what lies in the work tree, made in the folder `out`."""
    output([Path(__file__).with_name("release"), "--work-tree", "--out", out], failed)
    (wheel,) = out.glob("edgeclient-*.whl")
    return wheel
