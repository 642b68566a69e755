"""What is learnt from, by whom, and what it is judged on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Manifest
from edgeclient.compress.arrays import F32, I64
from edgeclient.train.batches import Batch
from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.mixing import shuffled, sliced
from edgeclient.train.rounds import RoundTrainer


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some examples of arrays that all devices share; see Dataset.

    Attributes:
        arrays: in the model's order, labels last.
        chosen: which examples, int64 (k,).
    """

    arrays: Batch
    chosen: I64

    def batches(self, batch_size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        if rng is None:
            return sliced(self.arrays, self.chosen, batch_size)
        return shuffled(iter([(self.arrays, self.chosen)]), batch_size, rng)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A bundle, what each device has, and what versions are judged on.

    Attributes:
        manifest: of the bundle.
        bundle: its SHA-256 and bytes.
        trainer: of its model.
        parameters: version 0, float32 (n,).
        devices: examples of each.
        test: what no device has.
    """

    manifest: Manifest
    bundle: tuple[str, int]
    trainer: RoundTrainer
    parameters: F32
    devices: Sequence[Part]
    test: Part

    @classmethod
    def open(
        cls, bundle: bytes, folder: Path, devices: Sequence[Part], test: Part, parameters: F32 | None = None
    ) -> Self:
        """Unpack a bundle into an empty folder, which must stay; other parameters than its own may be given.

        Raises:
            WireError: no bundle.
            TrainingError: no runtime is installed, or it refuses the bundle.
        """
        opened = archive.decode(bundle)
        for name, content in opened.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        start = opened.parameters if parameters is None else parameters
        digest = sha256(bundle).hexdigest()
        return cls(opened.manifest, (digest, len(bundle)), compiled_trainer(folder), start, devices, test)
