"""The command `edgebroker`: one command, one file of `commands`."""

from typing import Final

import click

from edgeclient import __version__
from edgeclient.logs import output
from edgeclient.logs.group import Commands

# What a user can act on.
EXPECTED: Final = (
    "builtins:MemoryError",
    "builtins:OSError",
    "broker.demo.plan:DemoError",
    "broker.ledger.protocol:LedgerError",
    "broker.processes.embedded:EmbeddedBrokerError",
    "broker.registry.blobs:RegistryError",
    "broker.upkeep.backup:UpkeepError",
    "edgeclient.settings:ConfigError",
    "edgeclient.train.batches:DataError",
    "edgeclient.train.trainer:TrainingError",
    "edgeclient.wire.errors:WireError",
)


@click.group(
    cls=Commands,
    places={
        "serve": "broker.commands.serve:serve_command",
        "task": "broker.commands.task:task_command",
        "status": "broker.commands.status:status_command",
        "settings": "broker.commands.settings:settings_command",
        "demo": "broker.commands.demo:demo_command",
        "init": "broker.commands.fleet:init",
        "devices": "broker.commands.fleet:devices",
        "why": "broker.commands.story:why",
        "events": "broker.commands.story:events",
        "top": "broker.commands.top:top",
        "backup": "broker.commands.store:backup",
        "restore": "broker.commands.store:restore",
        "ledger": "broker.commands.store:ledger",
        "takeover": "broker.commands.takeover:takeover_command",
        "simulate": "broker.commands.simulate:simulate_command",
        "export": "broker.commands.export:export_command",
        "predict": "broker.commands.predict:predict_command",
        "install": "broker.commands.install:install_command",
        "uninstall": "broker.commands.install:uninstall_command",
        "logs": "broker.commands.install:logs_command",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="edgebroker")
def cli() -> None:
    """The side beside the MQTT broker: counts every upload exactly once and makes new global models.

    \b
    Example:
      edgebroker demo --seconds 60        see the whole loop on this machine
    """


def main() -> None:
    """Entry point of the command."""
    output.end(cli, "edgebroker", EXPECTED)


if __name__ == "__main__":
    main()
