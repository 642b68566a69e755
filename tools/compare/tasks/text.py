"""Makes the text of the next-word task: `python -m tools.compare.tasks.text`, from two packages of Debian.

`apt-get download` brings `bible-kjv` and its text into a temporary folder; nothing is installed. Words are lower case,
punctuation counts as words, and what is not among the most frequent is word 0.
"""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from tools.compare.tasks.next_word import TEXT, WORDS

PACKAGES: Final = ("bible-kjv", "bible-kjv-text")
LEAST: Final = 1000  # words of a book that takes part
MOST: Final = 4000  # words of it, from its beginning
_WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)?|[.,;:!?]")
_VERSE: Final = re.compile(r"(\w+?)\d+:\d+ (.*)")


def numbered(books: dict[str, list[str]]) -> tuple[list[str], dict[str, list[int]]]:
    """The vocabulary, most frequent first behind "", and the beginning of each book that is long enough, in numbers.

    Example:
        >>> words, numbers = numbered({"long": ["so", "it", "is", "so"] * 250, "short": ["so"]})
        >>> words, numbers["long"][:4], list(numbers)
        (['', 'so', 'is', 'it'], [1, 3, 2, 1], ['long'])
    """
    taken = {book: words[:MOST] for book, words in books.items() if len(words) >= LEAST}
    counts = Counter(word for words in taken.values() for word in words)
    vocabulary = ["", *sorted(counts, key=lambda word: (-counts[word], word))[: WORDS - 1]]
    number = {word: at for at, word in enumerate(vocabulary)}
    return vocabulary, {book: [number.get(word, 0) for word in words] for book, words in taken.items()}


def _verses() -> str:
    """All verses, a line each: book chapter:verse text."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=folder, check=True)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        command = [f"{folder}/usr/bin/bible", "-f", "-p", f"{folder}/usr/lib/", "Gen1:1-Rev22:21"]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True).stdout


def main() -> None:
    """The command."""
    books: dict[str, list[str]] = {}
    for book, verse in (found.groups() for found in map(_VERSE.match, _verses().splitlines()) if found):
        books.setdefault(book, []).extend(_WORD.findall(verse.lower()))
    vocabulary, numbers = numbered(books)
    np.savez_compressed(
        TEXT,
        words=np.array(vocabulary),
        books=np.array(list(numbers)),
        lengths=np.array([len(each) for each in numbers.values()], np.int32),
        numbers=np.concatenate([np.array(each, np.uint16) for each in numbers.values()]),
    )
    print(f"{TEXT.name}: {len(numbers)} books, {sum(map(len, numbers.values()))} words, {TEXT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
