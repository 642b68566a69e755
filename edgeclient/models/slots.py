"""Two model slots and a pointer: a new version is written, verified and only then made active.

A crash at any point leaves the old version active. A damaged active slot is noticed at start-up, and the
model is fetched again.
"""

import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from edgeclient import failpoint, files
from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Manifest, read_manifest
from edgeclient.compress.arrays import F32
from edgeclient.models.allegiance import Allegiance
from edgeclient.models.incoming import Incoming
from edgeclient.wire import announcement
from edgeclient.wire.announcement import Announcement
from edgeclient.wire.errors import WireError
from edgeclient.wire.life import Owner


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An activated version.

    Attributes:
        announcement: what it was announced as.
        parameters: flat float32 (n,).
        bundle_directory: the unpacked training bundle.
    """

    announcement: Announcement
    parameters: F32
    bundle_directory: Path

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return read_manifest(self.bundle_directory)

    def owner(self, device: str) -> Owner:
        """Whose account a device's work on it is; a successor is followed before its first version has come."""
        return Owner(self.announcement.task, device, self.announcement.ledger)


class Models:
    """The model folder of one device and task.

    Attributes:
        incoming: what has come of the blob that is being fetched.
        allegiance: the ledger whose models these are.
    """

    def __init__(self, directory: Path) -> None:
        files.make_directory(directory / "bundles")
        self._directory = directory
        self.incoming = Incoming(directory / "incoming")
        self.allegiance = Allegiance(directory / "ledger")
        self._verified: set[str] = set()  # bundles found whole in this process

    def active(self) -> Model | None:
        """The active version, verified; None when there is none or it is damaged."""
        try:
            slot = self._directory / f"slot.{int((self._directory / 'active').read_text(encoding='utf-8'))}"
            announced = announcement.decode((slot / "announcement.json").read_bytes())
            content = (slot / "parameters.f32").read_bytes()
        except (OSError, ValueError, WireError):
            return None
        where = self.bundle(announced.bundle.digest)
        if where is None or sha256(content).hexdigest() != announced.parameters.digest:
            return None
        return _model(announced, content, where)

    def bundle(self, digest: str) -> Path | None:
        """Where the bundle of this digest is unpacked, or None when it is not there or damaged."""
        path = self._directory / "bundles" / digest
        if digest not in self._verified:
            if not _is_whole(path):
                return None
            self._verified.add(digest)
        return path

    def install_bundle(self, digest: str, content: bytes) -> Path:
        """Unpack a verified bundle; all of it or nothing.

        Raises:
            WireError: the content is no valid bundle.
        """
        contents = archive.decode(content).files
        path = self._directory / "bundles" / digest
        temporary = path.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)
        for name, data in contents.items():
            files.replace(temporary / name, data)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
        files.sync_directory(path.parent)
        return path

    def initial(self, announced: Announcement) -> bytes | None:
        """The parameters of version 0, which its bundle brings: a device need not fetch them again.

        None for another version, or where a bundle brings others than were announced.
        """
        where = self.bundle(announced.bundle.digest)
        if where is None or announced.version > 0:
            return None
        try:
            brought = archive.parameters(read_manifest(where), (where / archive.PARAMETERS).read_bytes())
        except WireError:
            return None
        content = brought.astype("<f4").tobytes()
        return content if sha256(content).hexdigest() == announced.parameters.digest else None

    def activate(self, announced: Announcement, content: bytes) -> Model:
        """Make verified parameters the active version; its bundle is already installed.

        Raises:
            WireError: "layout" when the bundle describes other parameters than announced.
        """
        where = self.bundle(announced.bundle.digest)
        assert where is not None, "the bundle comes first"
        layout = read_manifest(where).layout
        if (layout.digest, layout.size) != (announced.layout, announced.size):
            raise WireError("layout", f"announced {announced.layout[:16]}…, the bundle has {layout.digest[:16]}…")
        model = _model(announced, content, where)
        pointer = self._directory / "active"
        idle = "1" if pointer.exists() and pointer.read_bytes() == b"0" else "0"
        slot = self._directory / f"slot.{idle}"
        failpoint.hit("models.before-slot")
        files.replace(slot / "parameters.f32", content)
        files.replace(slot / "announcement.json", announcement.encode(announced))
        failpoint.hit("models.before-switch")
        files.replace(pointer, idle.encode())
        return model


def _model(announced: Announcement, content: bytes, where: Path) -> Model:
    parameters = np.frombuffer(content, "<f4").astype(np.float32)
    if not np.isfinite(parameters).all():
        raise WireError("value", f"version {announced.version} has parameters that are NaN or infinite")
    return Model(announced, parameters, where)


def _is_whole(path: Path) -> bool:
    try:
        manifest = read_manifest(path)
        return all(
            sha256((path / name).read_bytes()).hexdigest() == each.sha256 for name, each in manifest.files.items()
        )
    except (OSError, WireError):
        return False
