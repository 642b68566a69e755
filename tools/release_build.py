"""The command `tools/release`: wheel, sdist, bill of materials and checksums of one commit, the same bytes every time."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from tools.release_closure import CLOSURE, ClosureError, read_closure, resolve
from tools.release_materials import bill

ROOT: Final = Path(__file__).parents[1]
SUMS: Final = "SHA256SUMS"
_BUILD_S: Final = 300


class ReleaseError(Exception):
    """Nothing was released; one line that says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and release: 0 when it is done, 1 with one line when not."""
    parser = argparse.ArgumentParser("tools/release", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--commit", default="HEAD", metavar="REV", help="the commit to release (default: HEAD)")
    what.add_argument("--work-tree", action="store_true", help="what lies here instead, for tests: not a release")
    what.add_argument(
        "--resolve",
        action="store_true",
        help=f"ask pip which versions the extras need now, and write {CLOSURE}; commit that",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where to (default: dist)")
    asked = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="release-") as folder:
            if asked.resolve:
                _resolve(Path(folder))
            else:
                for path in release(None if asked.work_tree else asked.commit, Path(folder), asked.out):
                    print(f"{path.stat().st_size:>9,}  {path}")
    except (ReleaseError, ClosureError, OSError) as error:
        print(f"tools/release: {error}", file=sys.stderr)
        return 1
    return 0


def release(commit: str | None, scratch: Path, out: Path) -> list[Path]:
    """Build everything and put it into `out`, in place of what an earlier release left there.

    Args:
        commit: which; None for the work tree with all that is not ignored.
        scratch: an empty folder.
        out: made when missing.

    Returns:
        What was made.

    Raises:
        ReleaseError: git or the build backend refuses.
        ClosureError: the dependencies changed since they were resolved.
    """
    source, made = scratch / "source", scratch / "made"
    epoch_s = snapshot(commit, source)
    wheel, sdist = build(source, made, epoch_s)
    _, version, *_ = wheel.name.split("-")
    closure = read_closure(source)
    digest = sha256(wheel.read_bytes()).hexdigest()
    materials = made / f"edgeclient-{version}.cdx.json"
    materials.write_text(json.dumps(bill(version, wheel.name, digest, epoch_s, closure), indent=1) + "\n")
    files = sorted([wheel, sdist, materials])
    sums = made / SUMS
    sums.write_text("".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files))
    return _deliver([*files, sums], out)


def snapshot(commit: str | None, to: Path) -> int:
    """The files of a commit, or of the work tree, and nothing else.

    Returns:
        The commit's time, in seconds since 1970; the work tree's is that of its last commit.

    Raises:
        ReleaseError: there is no git, or no such commit.
    """
    epoch_s = int(_git("log", "-1", "--format=%ct", commit or "HEAD", "--"))
    to.mkdir()
    if commit is not None:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
            archive.extractall(to, filter="data")
        if _git("status", "--porcelain"):
            print(f"tools/release: what is not committed is not in {commit}", file=sys.stderr)
        return epoch_s
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return epoch_s


def build(source: Path, to: Path, epoch_s: int) -> tuple[Path, Path]:
    """Wheel and sdist; the backend writes sorted names, plain permissions and the time it is given.

    Raises:
        ReleaseError: the backend refuses.
    """
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(to)], source, {"SOURCE_DATE_EPOCH": str(epoch_s)})
    (wheel,), (sdist,) = to.glob("*.whl"), to.glob("*.tar.gz")
    return wheel, sdist


def _resolve(scratch: Path) -> None:
    epoch_s = snapshot(None, scratch / "source")
    wheel, _ = build(scratch / "source", scratch / "made", epoch_s)
    resolve(wheel, ROOT)
    print(ROOT / CLOSURE)


def _deliver(files: Sequence[Path], out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    if (out / SUMS).exists():
        for line in (out / SUMS).read_text().splitlines():
            (out / Path(line[66:]).name).unlink(missing_ok=True)
    return [Path(shutil.copy(path, out / path.name)) for path in files]


def _git(*arguments: str) -> bytes:
    return _run(["git", *arguments], ROOT, {})


def _run(command: Sequence[str], folder: Path, also: Mapping[str, str]) -> bytes:
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | also, capture_output=True, check=False, timeout=_BUILD_S
        )
    except FileNotFoundError:
        raise ReleaseError(f"{command[0]} is not installed") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise ReleaseError(f"{' '.join(command[:3])} ...: {said.splitlines()[-1]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
