"""Four words predict the fifth, one device for each book: sources differ in subject, style and length.

`next-word.npz` holds the first 4,000 words of the 61 books of the King James Version that have 1,000 or more, over the
1,023 most frequent words. The translation of 1611 is in the public domain (in the United Kingdom the Crown licenses its
printing); the file is made from Debian's packages `bible-kjv` and `bible-kjv-text` 4.38, "provided for unrestricted
use", by `python -m tools.compare.tasks.text`.

An update of a small batch moves the rows of the embedding whose words it read, so the gradient is sparse by itself.
A constant answer, the comma, reaches .094; any other word, 0, is an answer too. Dense averaging, 100 rounds, one seed:
mean accuracy of versions 82, 84 … 100 .259, of the mean of the last 20 .262.
"""

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient.bundle.layout import Layout
from edgeclient.compress.arrays import F32, I64, Array
from edgeclient.wire.announcement import Policy
from tools.compare.tasks.task import Task, bundle_of, he_start, layout_of

NAME: Final = "next-word"
TEXT: Final = Path(__file__).with_name("next-word.npz")
WORDS: Final = 1024
CONTEXT: Final = 4
EMBEDDING: Final = 32
HIDDEN: Final = 96
_EVERY: Final = 10  # the last tenth of each book is for the test


def next_word() -> Task:
    """The task; its split is that of the books, whatever the seed."""
    with np.load(TEXT) as saved:
        books = np.split(saved["numbers"].astype(np.int64), np.cumsum(saved["lengths"])[:-1])
    parts = [np.split(each, [len(each) - len(each) // _EVERY]) for each in books]
    train, test = zip(*[(_windows(before), _windows(after)) for before, after in parts], strict=True)
    places = np.split(np.arange(sum(map(len, train))), np.cumsum([len(each) for each in train])[:-1])
    policy = Policy(learning_rate=1.0, batch_size=32, local_steps=40)
    start = partial(_start, layout_of(NAME))
    return Task(
        NAME, bundle_of(NAME), _examples(train), _examples(test), lambda _: places, start, policy,
        cohort=10, versions=100,
    )  # fmt: skip


def _windows(words: I64) -> I64:
    """What stands in a row, (m, 5)."""
    return np.lib.stride_tricks.sliding_window_view(words, CONTEXT + 1)


def _examples(windows: tuple[I64, ...]) -> tuple[Array, ...]:
    joined = np.concatenate(windows)
    return np.ascontiguousarray(joined[:, :-1]), np.ascontiguousarray(joined[:, -1])


def _start(layout: Layout, seed: int) -> F32:
    """As `he_start`, but the embedding from N(0, .01): one of its rows is picked, they are not summed over."""
    start = he_start(layout, seed)
    start[layout.slices["embedding"]] *= np.float32(0.1 * np.sqrt(WORDS / 2))
    return start
