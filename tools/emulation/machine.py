"""An emulated arm64 board in a folder: a Debian userland and an emulator, unpacked, not installed.

Python runs there through a shell script that starts the emulator, laid out as a virtual environment's
`bin/python`: Python takes it for itself, so that `sys.executable` starts emulated processes, too. So does the system's
own `python3`, and what `python3 -m venv` makes of it.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from tools.output import BOARD, PYTHON, output

# The oldest core that boards of today have: newer ones hide instructions that it lacks.
CPU: Final = "cortex-a53"
# With the emulator of Debian 12 (7.2), `import onnxruntime` crashes on every core.
SUITE: Final = "trixie"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SITE: Final = Path("lib") / f"python{PYTHON}" / "site-packages"
_PACKAGES: Final = (
    "libc6", "libgcc-s1", "libstdc++6", "libpython3-stdlib", "python3-minimal", "python3-venv", "zlib1g",
)  # fmt: skip
_EMULATOR: Final = "usr/bin/qemu-aarch64"
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class EmulationError(Exception):
    """The board or what runs on it cannot be made; one line that says what is missing or which step failed."""


_run = partial(output, failed=EmulationError)


class Board:
    """Userland, emulator and environments below one folder; each is made again when its recipe has changed.

    Example: `Board(Path(".arm64")).userland()`
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._root = self._folder / "userland" / "root"
        self._emulator = self._folder / "userland" / "qemu-aarch64"

    def userland(self) -> None:
        """Debian's Python and the emulator.

        Raises:
            EmulationError: apt is missing, or a download failed.
        """
        self.keep("userland", (SUITE, *_PACKAGES), f"unpacking Python {PYTHON} for arm64 and an emulator", _userland)

    def wheels(self, name: str, requirements: Sequence[str]) -> list[Path]:
        """Wheels for the board of `requirements`, and of all that they need, that fit together.

        Fetched once: what is newest then stays.

        Raises:
            EmulationError: pip found no wheel.
        """
        doing = "fetching wheels for arm64"
        self.keep(name, requirements, doing, lambda to: _pip("download", "--dest", str(to), *requirements))
        return sorted((self._folder / name).glob("*.whl"))

    def environment(self, name: str, wheels: Sequence[Path], besides: Sequence[Path]) -> Path:
        """The Python of an environment as emulated programs see it; it can be started like any other.

        The wheels are unpacked into it; packages in the folders `besides` are seen, too, after its own.

        Raises:
            EmulationError: pip could not unpack a wheel.
        """
        recipe = [path.name for path in wheels]
        self.keep(name, recipe, f"unpacking the environment {name!r}", lambda to: _install(to / SITE, wheels))
        python = self._folder / name / "bin" / "python"
        self._lay_out(python, besides)
        return python

    def system(self) -> Path:
        """The folder of the userland's own `python3`, for the PATH; `python3 -m venv` makes environments of it."""
        python = self._root / "usr" / "bin" / "python3"
        python.unlink(missing_ok=True)  # a link to python3.13
        # It is told the name that it was called by: an environment's python is a link to it.
        self._script(python, '"$0"')
        # The emulator does not look into the userland for a file's extended attributes, and ensurepip copies them.
        (constants,) = self._root.glob(f"usr/lib/python{PYTHON}/_sysconfigdata__aarch64-linux-gnu.py")
        wheels = f"'WHEEL_PKG_DIR': {str(self._root / 'usr/share/python-wheels')!r}"
        constants.write_text(re.sub(r"'WHEEL_PKG_DIR': '[^']*'", lambda _: wheels, constants.read_text()))
        return python.parent

    def clean_environment(self) -> dict[str, str]:
        """What emulated processes see of this one's environment: nothing that is meant for its own processor."""
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.defpath,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "NUMBA_CACHE_DIR": str(self._folder / "numba"),
            "ORT_DISABLE_TELEMETRY": "1",
            **dict.fromkeys(_ONE_THREAD, "1"),
        }

    def keep(self, name: str, recipe: Sequence[str], doing: str, make: Callable[[Path], None]) -> None:
        """A folder that is made once per recipe, and is there whole or not at all; people are told `doing` before."""
        folder, stamp = self._folder / name, sha256("\n".join(recipe).encode()).hexdigest()
        made = folder / "recipe.sha256"
        if made.exists() and made.read_text() == stamp:
            return
        print(f"arm64: {doing} ...", file=sys.stderr, flush=True)
        unfinished = self._folder / f"{name}.new"
        for old in (unfinished, folder):
            shutil.rmtree(old, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        (unfinished / made.name).write_text(stamp)
        unfinished.rename(folder)

    def _lay_out(self, python: Path, besides: Sequence[Path]) -> None:
        """Written at every start, since the checkout may have moved."""
        environment, home = python.parents[1], self._root / "usr" / "bin"
        python.parent.mkdir(exist_ok=True)
        self._script(python, shlex.quote(str(python)))
        (environment / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        (environment / SITE / "besides.pth").write_text("".join(f"{folder}\n" for folder in besides))

    def _script(self, path: Path, name: str) -> None:
        """Python in the emulator; `name`, a shell word, is the path that it takes for its own."""
        real = self._root / "usr" / "bin" / f"python{PYTHON}"
        emulator = shlex.join([str(self._emulator), "-cpu", CPU, "-L", str(self._root)])
        path.write_text(f'#!/bin/sh\nexec {emulator} -0 {name} {shlex.quote(str(real))} "$@"\n')
        path.chmod(0o755)


# Debian


def _userland(folder: Path) -> None:
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EmulationError(f"{tool} is missing: this needs Debian or one of its kin")
    if not KEYRING.exists():
        raise EmulationError(f"{KEYRING} is missing: apt install debian-archive-keyring")
    host = _run(["dpkg", "--print-architecture"]).strip()
    apt, debs = folder / "apt", folder / "apt" / "cache" / "archives"
    tree = _apt_tree(apt, sorted({"arm64", host}))
    _run(["apt-get", *tree, "--quiet", "update"])
    _run(["apt-get", *tree, "--quiet", "--yes", "--download-only", "install", *_PACKAGES])
    root = folder / "root"
    for name in ("bin", "sbin", "lib"):  # package base-files does this
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted(debs.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(deb), str(root)])
    _run(["apt-get", *tree, "--quiet", "download", f"qemu-user:{host}"], cwd=debs)
    (deb,) = debs.glob("qemu-user_*.deb")
    _extract(deb, _EMULATOR, folder / "qemu-aarch64")
    shutil.rmtree(apt)


def _apt_tree(apt: Path, architectures: list[str]) -> list[str]:
    """Options of apt for lists, cache and state of its own, in which nothing is installed."""
    for name in ("etc", "lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "etc" / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": ",".join(architectures),
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::Cache": str(apt / "cache"),
        "Dir::Etc::sourcelist": str(apt / "etc" / "sources.list"),
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State": str(apt),
        "Dir::State::lists": str(apt / "lists"),
        "Dir::State::status": str(apt / "status"),
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _mirror() -> str:
    """Where this machine gets Debian from."""
    if given := os.environ.get("DEBIAN_MIRROR"):
        return given
    uris = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]).split()
    for uri in uris:
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise EmulationError("apt knows no Debian mirror here: name one, DEBIAN_MIRROR=http://.../debian")


def _extract(deb: Path, member: str, to: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
            for each in archive:
                content = archive.extractfile(each) if each.name.removeprefix("./") == member else None
                if content is not None:
                    to.write_bytes(content.read())
                    to.chmod(0o755)
    if not to.exists():
        raise EmulationError(f"{deb.name} holds no {member}")


# Python


def _install(to: Path, wheels: Sequence[Path]) -> None:
    # pip would ask for its own Python; `wheels` has asked for the board's.
    options = ["--no-deps", "--no-index", "--no-compile", "--ignore-requires-python", "--target", str(to)]
    _pip("install", *options, *map(str, wheels))


def _pip(command: str, *arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input", *BOARD]
    _run([sys.executable, "-m", "pip", command, *options, *arguments])
