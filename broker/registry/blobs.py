"""Content-addressed files: a name can only ever mean one content."""

from hashlib import sha256
from pathlib import Path

from edgeclient import files


class RegistryError(Exception):
    """Content is missing or damaged; the text says which file and what to do."""


class Blobs:
    """A folder of immutable files named by digest."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def put(self, content: bytes) -> str:
        """Store `content` durably and return its SHA-256 (hex)."""
        digest = sha256(content).hexdigest()
        path = self.path(digest)
        if not path.exists():
            files.replace(path, content)
        return digest

    def get(self, digest: str) -> bytes:
        """The content, verified.

        Raises:
            RegistryError: missing or damaged.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}: restore it from a backup") from None
        if sha256(content).hexdigest() != digest:
            raise RegistryError(f"{path} is damaged (its SHA-256 is another): restore it from a backup")
        return content

    def path(self, digest: str) -> Path:
        """Where the content of this digest is or would be."""
        return self._directory / digest

    def remove(self, digest: str) -> None:
        """Forget a content that nobody needs any more."""
        self.path(digest).unlink(missing_ok=True)
