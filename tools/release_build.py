"""The command `tools/release`: wheel, sdist, bill of materials and checksums of a commit, the same bytes each time."""

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
    what.add_argument("--work-tree", action="store_true", help="wheel and sdist of what lies here, for tests")
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
                made = archives(None, Path(folder)) if asked.work_tree else release(asked.commit, Path(folder))
                for path in _deliver(made, asked.out):
                    print(f"{path.stat().st_size:>9,}  {path}")
    except (ReleaseError, ClosureError, OSError) as error:
        print(f"tools/release: {error}", file=sys.stderr)
        return 1
    return 0


def release(commit: str, scratch: Path) -> list[Path]:
    """Build everything, the checksums last.

    Args:
        commit: which.
        scratch: an empty folder.

    Raises:
        ReleaseError: git or the build backend refuses.
        ClosureError: the dependencies changed since they were resolved.
    """
    wheel, sdist = archives(commit, scratch)
    _, version, *_ = wheel.name.split("-")
    materials = sdist.with_name(f"edgeclient-{version}.cdx.json")
    told = bill(version, wheel, _time_s(commit), read_closure(scratch / "source"))
    materials.write_text(json.dumps(told, indent=1) + "\n")
    files = sorted([wheel, sdist, materials])
    sums = sdist.with_name(SUMS)
    sums.write_text("".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files))
    return [*files, sums]


def archives(commit: str | None, scratch: Path) -> list[Path]:
    """The wheel and the sdist.

    The backend writes sorted names, plain permissions and the time it is given, the commit's.

    Args:
        commit: which; None for the work tree with all that is not ignored.
        scratch: an empty folder; what was built is in `source` then.

    Raises:
        ReleaseError: git or the build backend refuses.
    """
    source, made = scratch / "source", scratch / "made"
    snapshot(commit, source)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(made)]
    _run(build, source, {"SOURCE_DATE_EPOCH": str(_time_s(commit or "HEAD"))})
    return [next(made.glob(each)) for each in ("*.whl", "*.tar.gz")]


def snapshot(commit: str | None, to: Path) -> None:
    """The files of a commit, or of the work tree, and nothing else.

    Raises:
        ReleaseError: there is no git, or no such commit.
    """
    to.mkdir()
    if commit is not None:
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
            archive.extractall(to, filter="data")
        if _git("status", "--porcelain"):
            print(f"tools/release: what is not committed is not in {commit}", file=sys.stderr)
        return
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name, follow_symlinks=False)


def _time_s(commit: str) -> int:
    """When it was committed, in seconds since 1970."""
    return int(_git("log", "-1", "--format=%ct", commit, "--"))


def _resolve(scratch: Path) -> None:
    wheel, *_ = archives(None, scratch)
    resolve(wheel, ROOT)
    print(ROOT / CLOSURE)


def _deliver(files: Sequence[Path], out: Path) -> list[Path]:
    """Into `out`, in place of what an earlier release left there."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / SUMS).exists():
        for line in (out / SUMS).read_text().splitlines():
            (out / Path(line[66:]).name).unlink(missing_ok=True)
        (out / SUMS).unlink()
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
