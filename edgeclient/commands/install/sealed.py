"""Files that end with a digest of themselves: what somebody has changed is neither overwritten nor removed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgeclient import files

_SEAL: Final = b"# Written by edgeclient install; yours once you change it. "


@dataclass(frozen=True, slots=True)
class SealedFile:
    r"""A file to be written, in a language whose comments begin with #.

    Attributes:
        path: where.
        text: what, without the seal; ends with a newline.
        mode: its permissions.

    Example:
        >>> import tempfile
        >>> file = SealedFile(Path(tempfile.mkdtemp()) / "unit", "[Service]\n")
        >>> file.state(), file.write(), file.state()
        ('absent', None, 'same')
        >>> SealedFile(file.path, "[Unit]\n").state()
        'older'
        >>> file.path.write_bytes(file.path.read_bytes().replace(b"Service", b"Mine")) and file.state()
        'changed'
    """

    path: Path
    text: str
    mode: int = 0o644

    def state(self) -> Literal["absent", "same", "older", "changed"]:
        """What is there: nothing, this, another version of ours, or what somebody has made of it.

        Raises:
            OSError: it cannot be read.
        """
        try:
            there = self.path.read_bytes()
        except FileNotFoundError:
            return "absent"
        if there == self._content():
            return "same"
        body, seal, digest = there.rpartition(_SEAL)
        ours = bool(seal) and digest.strip() == _digest(body)
        return "older" if ours else "changed"

    def write(self) -> None:
        """Write it, whole or not at all."""
        files.replace(self.path, self._content())
        self.path.chmod(self.mode)

    def _content(self) -> bytes:
        body = self.text.encode()
        return body + _SEAL + _digest(body) + b"\n"


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
