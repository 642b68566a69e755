"""Running statistics that stay on the device, kept between rounds beside the bundle that they belong to.

They are no part of any account: after a power cut the last round's may be missing, and training moves them again.
"""

from pathlib import Path
from typing import Final

import numpy as np

from edgeclient import files
from edgeclient.bundle.manifest import read_manifest
from edgeclient.compress.arrays import F32
from edgeclient.train.compiled import initial_statistics

_FILE: Final = "local.f32"


class Statistics:
    """The file of one bundle.

    Args:
        bundle_directory: of the unpacked bundle.
    """

    def __init__(self, bundle_directory: Path) -> None:
        self._directory = bundle_directory

    def load(self) -> F32:
        """The last round's, else the bundle's own; float32 (l,)."""
        initial = initial_statistics(self._directory, read_manifest(self._directory))
        path = self._directory / _FILE
        if not initial.size or not path.is_file():
            return initial
        content = path.read_bytes()
        found = np.frombuffer(content, "<f4").astype(np.float32) if len(content) == initial.nbytes else initial
        return found if np.isfinite(found).all() else initial

    def save(self, statistics: F32) -> None:
        """Replace the file; nothing to do for bundles without local statistics."""
        if statistics.size:
            files.replace(self._directory / _FILE, statistics.astype("<f4").tobytes())
