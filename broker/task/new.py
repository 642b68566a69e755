"""A task begins: its bundle's parameters are version 0."""

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Version
from broker.registry.blobs import Blobs
from broker.registry.evaluator import command, told
from broker.settings import Aggregator, Task, task_values
from edgeclient import files
from edgeclient.bundle import archive
from edgeclient.settings import ConfigError, Source
from edgeclient.wire import topics

# How a device goes on that finds no data.
_ON_A_DEVICE: Final = ": [data] source in the configuration names it"


def add_task(settings: Aggregator, name: str, content: bytes, task_settings: Task) -> None:
    """Make a bundle's parameters version 0 of a new task; an evaluation file is remembered by its absolute path.

    Raises:
        WireError: the name or the bundle is not valid.
        LedgerError: the name is taken.
    """
    topics.checked(name)
    parameters = archive.decode(content).parameters
    files.make_directory(settings.directory)
    blobs = Blobs(settings.registry)
    initial = blobs.put_parameters(parameters)
    if (source := task_settings.evaluation) is not None and Path(source).exists():
        task_settings = attrs.evolve(task_settings, evaluation=Source(str(Path(source).absolute())))
    with open_ledger(settings.ledger) as ledger:
        ledger.add_task(name, blobs.put(content), task_values(task_settings), Version(0, initial, None, time.time()))


def measured(bundle: Path, source: str, options: Mapping[str, Any], parameters: Path | None = None) -> dict[str, Any]:
    """What parameters (a bundle's own by default) are worth: loss, accuracy, num_examples; proof that data is read.

    Raises:
        ConfigError: it is not there, does not fit the model, or the packages to evaluate with are missing.
    """
    of = [] if parameters is None else ["--parameters", str(parameters)]
    wanted = [*command(bundle, source, options), *of]
    answered = subprocess.run(wanted, capture_output=True, text=True, check=False)  # noqa: S603 (our own command)
    if answered.returncode:
        why = (answered.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise ConfigError(f"evaluation: {told(why.removeprefix('edgeclient: ').removesuffix(_ON_A_DEVICE))}")
    found: dict[str, Any] = json.loads(answered.stdout.splitlines()[-1])
    return found
