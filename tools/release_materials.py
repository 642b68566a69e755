"""The bill of materials of a release: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from tools.release_closure import Closure, Package


@dataclass(frozen=True, slots=True)
class Vendored:
    """What others made and we carry in the sdist: `files`; its licence lies beside it in a file LICENSE.name.

    `version` and `source` are of what it was taken from, `licence` is an SPDX expression.
    """

    name: str
    version: str
    licence: str
    source: str
    files: tuple[PurePosixPath, ...]
    in_wheel: bool


_DATA, _PAGE = PurePosixPath("broker/demo/data"), PurePosixPath("broker/page/static/uplot")
VENDORED: Final = (
    Vendored(
        "watch-har", "1.2.5", "BSD-3-Clause", "seglearn",
        (_DATA / "watch_har.npz", _DATA / "watch-har.bundle"), in_wheel=False,
    ),
    Vendored(
        "uplot", "1.6.32", "MIT", "https://github.com/leeoniya/uPlot",
        (_PAGE / "uPlot.iife.min.js", _PAGE / "uPlot.min.css"), in_wheel=True,
    ),
)  # fmt: skip
_LICENCE: Final = "Apache-2.0"


def bill(version: str, wheel: Path, epoch_s: int, closure: Closure) -> dict[str, Any]:
    """The document, for `json`.

    Which extras bring a package, and on which machine, is in the properties `edgeclient:extras:MACHINE`, "core" for
    what always comes; the licences are what the packages say of themselves. The commit's time is in seconds since 1970.
    """
    digest = sha256(wheel.read_bytes()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid5(NAMESPACE_URL, digest).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": "edgeclient",
                "name": "edgeclient",
                "version": version,
                "licenses": _licences(_LICENCE),
                "purl": f"pkg:pypi/edgeclient@{version}",
                "externalReferences": [_file(wheel.name, digest)],
            },
        },
        "components": [
            *(_package(name, each, closure) for name, each in closure.packages.items()),
            *(_vendored(each) for each in VENDORED),
        ],
        "dependencies": [{"ref": "edgeclient", "dependsOn": [*closure.packages, *(each.name for each in VENDORED)]}],
    }


def _package(reference: str, package: Package, closure: Closure) -> dict[str, Any]:
    name, _, version = reference.partition("==")
    brought = [
        {
            "name": f"edgeclient:extras:{machine}",
            "value": " ".join(extra or "core" for extra, names in extras.items() if reference in names),
        }
        for machine, extras in closure.targets.items()
    ]
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "licenses": _licences(package.licence),
        "purl": f"pkg:pypi/{name.replace('_', '-')}@{version}",
        "externalReferences": [_file(file, digest) for file, digest in package.files.items()],
        "properties": [each for each in brought if each["value"]],
    }


def _vendored(part: Vendored) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": part.name,
        "name": part.name,
        "version": part.version,
        "description": f"taken from {part.source}; in the {'wheel and the ' if part.in_wheel else ''}sdist",
        "licenses": _licences(part.licence),
        "properties": [{"name": "edgeclient:file", "value": str(file)} for file in part.files],
    }


def _licences(said: str) -> list[dict[str, Any]]:
    """By name: what packages say is not always SPDX."""
    return [{"license": {"name": said}}] if said else []


def _file(name: str, digest: str) -> dict[str, Any]:
    return {"type": "distribution", "url": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
