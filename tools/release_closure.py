"""Which versions of what the extras bring, resolved once and kept in a file: a release says the same every time."""

import json
import platform
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tools.output import BOARD, PYTHON, output

CLOSURE: Final = "tools/release_closure.json"
_PIP_S: Final = 900
_LICENCE_LETTERS: Final = 40  # more is the text of a licence, not its name
# Metadata name no licence, a file has its text; axe-core, which the second brings along, is under the other of its two.
_TEXT_ALONE: Final = {"atheris": "Apache-2.0", "axe-playwright-python": "MIT AND MPL-2.0"}
_ON_BOARDS: Final = frozenset({"", "accel", "broker", "onnx"})


class ClosureError(Exception):
    """The dependencies are unknown; one line that says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A version of a package.

    Attributes:
        licence: an SPDX expression where the package gives one, else what it says.
        files: SHA-256 by name of the wheels that were resolved.
    """

    licence: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What each extra brings.

    Attributes:
        requires: what pyproject.toml asked for, by extra; "" for none.
        targets: by machine: by extra: "name==version" of everything that pip would install.
        packages: by "name==version".
    """

    requires: dict[str, list[str]]
    targets: dict[str, dict[str, list[str]]]
    packages: dict[str, Package]


def requirements(root: Path) -> dict[str, list[str]]:
    """What a checkout's pyproject.toml asks for, by extra; "" for none."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def read_closure(root: Path) -> Closure:
    """A checkout's closure.

    Raises:
        ClosureError: it was resolved for other dependencies than the checkout's.
    """
    read = json.loads((root / CLOSURE).read_text())
    packages = {name: Package(**each) for name, each in read.pop("packages").items()}
    closure = Closure(**read, packages=packages)
    if closure.requires != requirements(root):
        raise ClosureError("the dependencies changed: run tools/release --resolve, then commit what it wrote")
    return closure


def resolve(wheel: Path, root: Path) -> None:
    """Ask pip, for this machine and for a board, and write the answer.

    pip applies the markers of this interpreter to boards, too: a package that only older Pythons need may be one too
    many there.

    Raises:
        ClosureError: this Python cannot, or pip found no solution.
    """
    if sys.version_info[:2] not in {(3, 11), (3, 12)} or platform.machine() != "x86_64":
        raise ClosureError("only Python 3.11 or 3.12 on x86-64 resolves all extras: PYTHON=... tools/release --resolve")
    here = f"cpython {sys.version_info.major}.{sys.version_info.minor}, x86_64"
    wanted = requirements(root)
    targets: dict[str, dict[str, list[str]]] = {here: {}, f"cpython {PYTHON}, aarch64": {}}
    packages: dict[str, Package] = {}
    for extras, options in zip(targets.values(), ((), BOARD), strict=True):
        for extra in wanted if not options else sorted(_ON_BOARDS & wanted.keys()):
            found = _report(f"{wheel}[{extra}]" if extra else str(wheel), options)
            extras[extra] = sorted(found)
            for name, package in found.items():
                packages.setdefault(name, Package(licence=package.licence, files={})).files.update(package.files)
    closure = Closure(requires=wanted, targets=targets, packages=dict(sorted(packages.items())))
    (root / CLOSURE).write_text(json.dumps(asdict(closure), indent=1) + "\n")


def _report(requirement: str, options: Sequence[str]) -> dict[str, Package]:
    with tempfile.TemporaryDirectory() as nowhere:
        target = ["--target", nowhere, *options] if options else ["--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--dry-run", "--ignore-installed", "--report=-", *target, requirement]
        told = output(command, ClosureError, limit_s=_PIP_S)
    found = {}
    for each in json.loads(told)["install"]:
        metadata, download = each["metadata"], each["download_info"]
        if metadata["name"] != "edgeclient":
            (name,) = download["url"].split("/")[-1:]
            sums = {name: download["archive_info"]["hashes"]["sha256"]}
            found[f"{metadata['name'].lower()}=={metadata['version']}"] = Package(licence=licence(metadata), files=sums)
    return found


def licence(metadata: dict[str, Any]) -> str:
    """The licence that a package's metadata name, as pip reports them; "" when they name none.

    Example:
        >>> licence({"license": "Apache 2.0", "classifier": ["License :: OSI Approved :: Apache Software License"]})
        'Apache 2.0'
    """
    if expression := metadata.get("license_expression"):
        return str(expression)
    said = str(metadata.get("license") or "").strip()
    if said and "\n" not in said and len(said) <= _LICENCE_LETTERS:
        return said
    kinds = [each.split(" :: ")[-1] for each in metadata.get("classifier", []) if each.startswith("License :: ")]
    return " AND ".join(kinds) or _TEXT_ALONE.get(metadata.get("name", ""), "")
