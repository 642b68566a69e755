"""The kit takes any implementation: see IMPLEMENTATIONS in tests/support/ledgers.py."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledgers import IMPLEMENTATIONS, version

from broker.ledger.protocol import Ledger


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    """Its name."""
    return str(request.param)


@pytest.fixture(scope="session")
def opened(implementation: str) -> Callable[..., Ledger]:
    """Opens the ledger of a folder."""
    return IMPLEMENTATIONS[implementation]


@pytest.fixture
def ledger(opened: Callable[..., Ledger], tmp_path: Path) -> Iterator[Ledger]:
    """An open one with the task t, whole at the end."""
    with opened(tmp_path) as made:
        made.add_task("t", "b", {}, version(0))
        yield made
        assert made.check() == []
