"""`edgebroker takeover`: a task goes on with this ledger instead of another one that is gone."""

import re
import time
from pathlib import Path

import click

from broker.commands.options import CONFIG_OPTION
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger, LedgerError
from broker.ledger.rows import Start
from broker.settings import Aggregator
from broker.views import Contact
from edgeclient.settings import load
from edgeclient.wire.announcement import MAX_TERM


@click.command("takeover")
@click.argument("task")
@CONFIG_OPTION
@click.option("--ledger", "gone", default="", metavar="ID", help="Of the other one; by default the last that was met.")
def takeover_command(task: str, config: Path, gone: str) -> None:
    """Let TASK go on with the ledger in CONFIG instead of another one that is gone for good.

    When `serve` finds that another ledger has served a task, it does not serve it. Devices follow one ledger: they
    follow this one from now on where the other stays silent for 10 seconds. Each begins a new account then: what it had
    not sent, and what the other one counted after this ledger was made, is not in this model. To go on with what was
    learnt, restore a backup of the other ledger instead (edgebroker restore): it keeps its identity.

    \b
    Example:
      edgebroker takeover har --config broker.toml
      edgebroker serve broker.toml
    """
    settings = load(config, Aggregator)
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: add a task first, see edgebroker task add --help")
    with open_ledger(settings.ledger) as ledger:
        succeeded = _chosen(ledger, task, gone)
        ledger.inherit(task, succeeded, time.time())
        own = ledger.identity().ledger
    click.echo(f"task {task}: ledger {own} succeeds {succeeded.ledger}; start edgebroker serve {config} (again)")


def _chosen(ledger: Ledger, task: str, gone: str) -> Start:
    """The other ledger, up to the start of it that is known of: a later one would have to be taken over again."""
    if task not in {row.name for row in ledger.tasks()}:
        raise LedgerError(f"there is no task {task} here: edgebroker task list shows those that there are")
    own = ledger.identity().ledger
    met = [each for each in ledger.rivals(task) if each.ledger != own and each.ledger.startswith(gone)]
    # First those that have kept this one from serving: whoever publishes may have announced others since.
    met.sort(key=lambda each: each.contact not in {Contact.ALIVE, Contact.SILENT})
    if met:
        return Start(met[0].ledger, max(each.term for each in met if each.ledger == met[0].ledger))
    if not re.fullmatch("[0-9a-f]{16}", gone) or gone == own:
        raise LedgerError(
            f"no other ledger was met for task {task}: edgebroker serve says which one serves it, and edgeclient status"
            " which one a device follows: 16 digits for --ledger"
        )
    return Start(gone, MAX_TERM)
