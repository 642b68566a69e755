"""Whole files: read as text that people wrote, and written so that they survive power loss.

Those are written beside, synced, renamed, and the folder synced.
"""

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


def text(path: Path) -> str:
    """A file that somebody has written, in UTF-8; what editors of Windows put before it is no part of it.

    Raises:
        ValueError: it is in another encoding; one line that says which, and what to do.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    if b"\0" in content:
        if not content.strip(b"\0"):
            raise ValueError("it holds zeros alone, as after a power cut: write it again")
        raise ValueError("it is UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8, but likely Latin-1 (Windows-1252): save it as UTF-8") from None
