"""Whole files that survive power loss: written beside, synced, renamed, and the folder synced."""

import os
from pathlib import Path

from edgeclient import failpoint


def replace(path: Path, content: bytes) -> None:
    """Make `content` the content of `path`: after a crash it is the old or the new, never a part.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note"
        >>> replace(path, b"hello")
        >>> path.read_bytes()
        b'hello'
    """
    make_directory(path.parent)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    failpoint.hit("files.before-rename")
    temporary.replace(path)
    sync_directory(path.parent)


def make_directory(directory: Path) -> None:
    """Make a folder, and those above it, unless they are there; power loss does not take a new one away again."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the directory's entries are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
