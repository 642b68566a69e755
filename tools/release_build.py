"""The command `tools/release`: wheel, sdist, bill of materials and checksums of a commit, the same bytes each time."""

import argparse
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from tools.output import output
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
    help_ = f"ask pip which versions the extras need now, and write {CLOSURE}; commit that"
    what.add_argument("--resolve", action="store_true", help=help_)
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
    """Build everything in an empty folder, the checksums last.

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
    """The wheel and the sdist of a commit, or of the work tree with all that is not ignored.

    The backend writes sorted names, plain permissions and the time it is given, the commit's. `scratch` is empty;
    what was built is in its `source` then.

    Raises:
        ReleaseError: git or the build backend refuses.
    """
    source, made = scratch / "source", scratch / "made"
    snapshot(commit, source)
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(made)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(_time_s(commit or "HEAD"))}
    output(build, ReleaseError, cwd=source, env=environment, limit_s=_BUILD_S)
    return [next(made.glob(each)) for each in ("*.whl", "*.tar.gz")]


def snapshot(commit: str | None, to: Path) -> None:
    """The files of a commit, or of the work tree, and nothing else.

    Raises:
        ReleaseError: there is no git, or no such commit.
    """
    to.mkdir()
    if commit is not None:
        packed = to.with_suffix(".tar")
        _git("archive", "--output", packed, commit)
        # Before 3.11.4, as in Debian 12, there is no filter; these are our own files.
        with tarfile.open(packed) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(to)  # noqa: S202 (see above)
        if _git("status", "--porcelain"):
            print(f"tools/release: what is not committed is not in {commit}", file=sys.stderr)
        return
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
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


def _git(*arguments: str | Path) -> str:
    return output(["git", *arguments], ReleaseError, cwd=ROOT, limit_s=_BUILD_S)


if __name__ == "__main__":
    sys.exit(main())
