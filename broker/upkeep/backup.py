"""The aggregator's store, ledger and registry together: backed up while it runs, and restored."""

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from broker.ledger.opening import AggregatorLock, open_ledger
from broker.registry.blobs import Blobs, RegistryError
from broker.settings import Aggregator
from edgeclient import files

_LEDGER: Final = "ledger.db"
_REGISTRY: Final = "registry"
_ATTEMPTS: Final = 5


class UpkeepError(Exception):
    """A backup cannot be made or used, or a device's account not be read; one line that says why and what to do."""


def backup(settings: Aggregator, target: Path) -> int:
    """Copy ledger and registry into the new folder `target`, consistent while the aggregator runs; bytes written.

    The folder appears whole or not at all.

    Raises:
        UpkeepError: there is something at `target` already.
        LedgerError, RegistryError: the store cannot be read, or the copy not be written.
    """
    if target.exists():
        raise UpkeepError(f"{target} is already there: choose a folder that does not exist yet")
    partial = target.with_name(target.name + ".partial")
    try:
        _copy(settings, partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # it may have taken the last room that the aggregator has
        raise
    files.sync_directory(partial)
    partial.rename(target)
    files.sync_directory(target.parent)
    return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())


def _copy(settings: Aggregator, partial: Path) -> None:
    """Ledger and registry that belong together."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with open_ledger(settings.ledger, read_only=True) as ledger:
            ledger.copy_to(partial / _LEDGER)
            try:
                _copy_blobs(partial / _LEDGER, Blobs(settings.registry), Blobs(partial / _REGISTRY))
            except RegistryError:
                # The aggregator may have dropped an old version meanwhile: then a newer copy does not name it.
                with open_ledger(partial / _LEDGER, read_only=True) as copied:
                    if copied.digests() <= ledger.digests():
                        raise
            else:
                return
    raise UpkeepError(f"{settings.directory} changed too fast to be copied: try again")


def restore(settings: Aggregator, source: Path) -> dict[str, int]:
    """Make the backup in `source` the aggregator's store; the version that each task continues from.

    Raises:
        UpkeepError: `source` holds no backup, or there is a ledger already.
        LedgerError, RegistryError: the backup is damaged, or an aggregator runs.
    """
    if not ((source / _LEDGER).is_file() and (source / _REGISTRY).is_dir()):
        raise UpkeepError(f"{source} holds no backup: give a folder that edgebroker backup has made")
    settings.directory.mkdir(parents=True, exist_ok=True)
    with closing(AggregatorLock(settings.ledger)):
        for name in (_LEDGER, f"{_LEDGER}-wal"):
            if (settings.directory / name).exists():
                raise UpkeepError(
                    f"{settings.directory} holds {name} already: move the folder away first, then restore again"
                )
        for leftover in settings.directory.glob(f"{_LEDGER}.rest*"):  # of a restore that was killed
            leftover.unlink()
        staged = settings.directory / f"{_LEDGER}.restoring"
        for end in ("", "-wal"):  # a folder that a dead machine left has its newest writes in the log
            if (source / f"{_LEDGER}{end}").exists():
                shutil.copyfile(source / f"{_LEDGER}{end}", f"{staged}{end}")
        with open_ledger(staged) as ledger:
            ledger.check_pages()
        _copy_blobs(staged, Blobs(source / _REGISTRY), Blobs(settings.registry))
        with open_ledger(staged) as ledger:
            ledger.jump(time.time())
            continued = {name: ledger.versions(name, last=1)[0].number for name, _, _ in ledger.tasks()}
            final = settings.directory / f"{_LEDGER}.restored"
            ledger.copy_to(final)
        final.rename(settings.ledger)
        for leftover in settings.directory.glob(f"{_LEDGER}.restoring*"):
            leftover.unlink()
        files.sync_directory(settings.directory)
    return continued


def _copy_blobs(ledger: Path, source: Blobs, target: Blobs) -> None:
    with open_ledger(ledger, read_only=True) as named:
        for digest in sorted(named.digests()):
            target.put(source.get(digest))
