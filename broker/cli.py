"""The command `edgebroker`: one command, one file of `commands`."""

import click

from broker.commands import fleet, store, story, top
from broker.commands.demo import demo_command
from broker.commands.export import export_command
from broker.commands.install import install_command, logs_command, uninstall_command
from broker.commands.predict import predict_command
from broker.commands.serve import serve_command
from broker.commands.settings import settings_command
from broker.commands.status import status_command
from broker.commands.task import task_command
from broker.demo.plan import DemoError
from broker.ledger.protocol import LedgerError
from broker.processes.embedded import EmbeddedBrokerError
from broker.registry.blobs import RegistryError
from broker.upkeep.backup import UpkeepError
from edgeclient import __version__
from edgeclient.logs import output
from edgeclient.settings import ConfigError
from edgeclient.wire.errors import WireError

_EXPECTED = (
    *(ConfigError, LedgerError, RegistryError, EmbeddedBrokerError),
    *(WireError, DemoError, UpkeepError, OSError),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgebroker")
def cli() -> None:
    """The side beside the MQTT broker: counts every upload exactly once and makes new global models.

    \b
    Example:
      edgebroker demo --seconds 60        see the whole loop on this machine
    """


for _command in (
    *(serve_command, task_command, status_command, settings_command, demo_command, fleet.init, fleet.devices),
    *(story.why, story.events, top.top, store.backup, store.restore, store.ledger),
    *(export_command, predict_command, install_command, uninstall_command, logs_command),
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the command."""
    output.end(cli, "edgebroker", _EXPECTED)


if __name__ == "__main__":
    main()
