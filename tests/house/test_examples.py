"""Every example in a docstring runs and says what it says."""

import doctest
import importlib
import pkgutil

import pytest

import broker
import edgeclient
from tools import compare


def modules() -> list[str]:
    return [
        each.name
        for package in (edgeclient, broker, compare)
        for each in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=_fail)
    ]


def _fail(name: str) -> None:
    raise ImportError(name)


ALL = modules()
# Those whose docstrings hold an example; a lost one would pass unnoticed otherwise.
AT_LEAST = 20


@pytest.mark.parametrize("name", ALL)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = [name for name in ALL if any(each.examples for each in finder.find(importlib.import_module(name)))]
    assert len(with_examples) >= AT_LEAST
