"""Packs device and aggregator of an older commit for the test of compatibility: `python -m tools.make_older COMMIT`.

Only the modules that their composition roots need, without command lines, compiler and documents: below 100 kB.
"""

import io
import lzma
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
# Folders whose modules are imported when they are needed.
_LATER: Final = ("compress", "train", "wire")
_LOADED: Final = (
    "import sys, edgeclient.agent, broker.service, broker.settings\n"
    "ours = [module for name, module in sys.modules.items() if name.split('.')[0] in ('edgeclient', 'broker')]\n"
    "print('\\n'.join(module.__file__ for module in ours if module.__file__))"
)


def pack(commit: str, folder: Path) -> bytes:
    """The modules as a compressed archive.

    Args:
        commit: which.
        folder: an empty one.
    """
    command = ["git", "archive", commit, "edgeclient", "broker"]
    with tarfile.open(fileobj=io.BytesIO(subprocess.check_output(command, cwd=ROOT))) as everything:
        everything.extractall(folder, filter="data")
    loaded = subprocess.check_output([sys.executable, "-B", "-c", _LOADED], cwd=folder, text=True).split()
    needed = {Path(each) for each in loaded}
    needed |= {path for name in _LATER for path in (folder / "edgeclient" / name).glob("*.py")}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(needed):
            member = tarfile.TarInfo(str(path.relative_to(folder)))
            member.size = path.stat().st_size
            archive.addfile(member, io.BytesIO(path.read_bytes()))
    return lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = pack(sys.argv[1], Path(scratch))
    (ROOT / "tests" / "data" / f"older-{sys.argv[1]}.tar.xz").write_bytes(made)
