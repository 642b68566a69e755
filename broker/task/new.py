"""A task begins: its bundle's parameters are version 0."""

import time

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Version
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, Task, as_json
from edgeclient import files
from edgeclient.bundle import archive
from edgeclient.wire import topics


def add_task(settings: Aggregator, name: str, content: bytes, task_settings: Task) -> None:
    """Make a bundle's parameters version 0 of a new task.

    Raises:
        WireError: the name or the bundle is not valid.
        LedgerError: the name is taken.
    """
    topics.checked(name)
    parameters = archive.decode(content).parameters
    files.make_directory(settings.directory)
    blobs = Blobs(settings.registry)
    initial = blobs.put_parameters(parameters)
    with open_ledger(settings.ledger) as ledger:
        ledger.add_task(name, blobs.put(content), as_json(task_settings), Version(0, initial, None, time.time()))
