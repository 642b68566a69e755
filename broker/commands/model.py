"""The model of a version, as files that an `edgeclient` child process reads: no training code runs in here."""

import difflib
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from broker.ledger.opening import open_ledger
from broker.ledger.protocol import LedgerError
from broker.ledger.rows import Version
from broker.registry.blobs import Blobs
from broker.settings import Aggregator, measures, task_settings
from broker.task.worth import best_version

VERSION: Final = click.option(
    "--version", "wanted", default="latest", show_default=True, metavar="N|best|latest", help="Of the task's model."
)


class Kept(NamedTuple):
    """A version in the registry.

    Attributes:
        name: for people.
        bundle: the file of its task's bundle.
        parameters: the file of its parameters.
        evaluation: what the task evaluates on.
        options: by which files like that are read.
        better: number of another version with a better evaluation.
    """

    name: str
    bundle: Path
    parameters: Path
    evaluation: str | None
    options: Mapping[str, Any]
    better: int | None


def kept(settings: Aggregator, task: str, wanted: str) -> Kept:
    """The files of a version, verified; `wanted` is a number, "best" or "latest".

    Raises:
        LedgerError: no such task or version; the text says which there are.
        RegistryError: a file is missing or damaged.
    """
    with open_ledger(settings.ledger, read_only=True) as ledger:
        rows = {row.name: row for row in ledger.tasks()}
        if task not in rows:
            near = difflib.get_close_matches(task, rows, n=1) or sorted(rows)
            raise LedgerError(f"no task {task}: {f'did you mean {near[0]}?' if near else 'none has been added yet'}")
        versions = ledger.versions(task)
    finest = best_version(versions)
    version = _version(versions, finest, task, wanted)
    blobs, row = Blobs(settings.registry), rows[task]
    for digest in (row.bundle, version.digest):
        blobs.get(digest)
    evaluation, options = measures(task_settings(task, row.settings))
    if evaluation is not None and not Path(evaluation).exists():  # of a function, the arguments
        options = {key: value for key, value in options.items() if key == "classes"}
    better = finest if version.metrics and finest != version.number else None
    name = f"{task} version {version.number}"
    return Kept(name, blobs.path(row.bundle), blobs.path(version.digest), evaluation, options, better)


def edgeclient(command: Sequence[str]) -> None:
    """Run a command of the device's program; its output is ours, and its failure ends us likewise."""
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "edgeclient.cli", *command], stderr=subprocess.PIPE, check=False)  # noqa: S603 (our own program)
    click.echo(re.sub(rb"^edgeclient: ", b"edgebroker: ", done.stderr, flags=re.MULTILINE), nl=False, err=True)
    if done.returncode:
        sys.exit(done.returncode)


def _version(versions: Sequence[Version], finest: int | None, task: str, wanted: str) -> Version:
    if wanted == "latest":
        return next(each for each in reversed(versions) if not each.held)
    if wanted == "best" and finest is None:
        raise LedgerError(
            f"no version of {task} has been evaluated, so none is known as the best: evaluation in the task's settings"
            " names what to measure on; --version latest takes the newest"
        )
    number = str(finest) if wanted == "best" else wanted
    found = next((each for each in versions if str(each.number) == number), None)
    if found is None:
        raise LedgerError(
            f"version {wanted} of {task} is not kept: of {versions[0].number} to {versions[-1].number} there are"
            f" {len(versions)}, see keep_versions of the task's settings; best and latest are others to ask for"
        )
    return found
