"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, 1708.07747) split so that a device knows two of ten classes.

60,000 + 10,000 images 28 × 28; MIT/Expat, Zalando SE; Debian's package `dataset-fashion-mnist` has the original files.
The split is the one of McMahan et al. 2017 (1602.05629): sorted by label, cut into 200 shards of 300, two a device.

Dense averaging, 100 rounds, eight seeds: mean accuracy of versions 82, 84 … 100 .770 ± .013, of the mean of the last 20
.816 ± .004. From Glorot's start .772 and .814, from one uniform in ±1/√rows .744 and .790 (three seeds each).
"""

import gzip
import math
import zlib
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.compress.arrays import F32, I64, U8
from edgeclient.wire.announcement import Policy
from tools.compare.tasks.task import Task, bundle_of, generator, he_start, layout_of

NAME: Final = "fashion-mnist"
WIDTHS: Final = (784, 200, 200, 10)
DEVICES: Final = 100
SHARDS: Final = 2  # of each device
DEBIAN: Final = Path("/usr/share/datasets/fashion-mnist")
_FILES: Final = ("{}-images-idx3-ubyte.gz", "{}-labels-idx1-ubyte.gz")


def fashion_mnist(folder: Path = DEBIAN) -> Task:
    """The task, with the four IDX files of `folder`.

    Raises:
        FileNotFoundError: a file is not there; the text says what to install.
        ValueError: a file is no IDX file of bytes.
    """
    examples, test = _images(folder, "train"), _images(folder, "t10k")
    policy = Policy(learning_rate=0.05, batch_size=20)
    split, start = partial(by_shards, examples[1]), partial(he_start, layout_of(NAME))
    return Task(NAME, bundle_of(NAME), examples, test, split, start, policy, cohort=10, versions=100)


def by_shards(labels: I64, seed: int) -> list[I64]:
    """Places of each device's examples, two shards of examples sorted by label.

    Example:
        >>> places = by_shards(np.repeat(np.arange(10), 6000), seed=0)
        >>> len(places), places[0].size, len(np.unique(np.concatenate(places)))
        (100, 600, 60000)
    """
    shards = np.argsort(labels, kind="stable").reshape(DEVICES * SHARDS, -1)
    drawn = generator(seed, "split").permutation(len(shards)).reshape(DEVICES, SHARDS)
    return list(shards[drawn].reshape(DEVICES, -1))


def read_idx(path: Path) -> U8:
    """The array of bytes in a compressed IDX file: 0, 0, 8, dimensions, each a big-endian int32, bytes.

    Raises:
        ValueError: it is something else.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error):
        content = b""
    begin = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 4
    shape = np.frombuffer(content[4:begin], ">i4").tolist() if len(content) >= begin else []
    if not shape or len(content) != begin + math.prod(shape):
        raise ValueError(f"{path} is no IDX file of bytes")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)


def _images(folder: Path, part: str) -> tuple[F32, I64]:
    """Pixels from 0 to 1, float32 (m, 784), and classes (m,)."""
    paths = [folder / each.format(part) for each in _FILES]
    if missing := [str(each) for each in paths if not each.is_file()]:
        raise FileNotFoundError(f"no {missing[0]}: apt install dataset-fashion-mnist, or name a folder with its files")
    images, labels = map(read_idx, paths)
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)
