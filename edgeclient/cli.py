"""The command `edgeclient`: one command, one file of `commands`."""

import click

from edgeclient import __version__
from edgeclient.commands.audit import audit_command
from edgeclient.commands.compile import compile_command
from edgeclient.commands.doctor.command import doctor_command
from edgeclient.commands.evaluate import evaluate_command
from edgeclient.commands.export import export_command
from edgeclient.commands.frame import frame_command
from edgeclient.commands.install.command import install_command, logs_command, uninstall_command
from edgeclient.commands.join import join_command
from edgeclient.commands.leave import leave_command
from edgeclient.commands.new.command import new_command
from edgeclient.commands.once import once_command
from edgeclient.commands.pause import pause_command, resume_command
from edgeclient.commands.predict import predict_command
from edgeclient.commands.run import run_command
from edgeclient.commands.settings import settings_command
from edgeclient.commands.status import status_command
from edgeclient.commands.store import store_command
from edgeclient.commands.warmup import warmup_command
from edgeclient.compile.errors import CompileError
from edgeclient.durable.lock import StoreError
from edgeclient.logs import output
from edgeclient.settings import ConfigError
from edgeclient.train.batches import DataError
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.errors import WireError

_EXPECTED = (ConfigError, CompileError, StoreError, DataError, TrainingError, WireError, OSError)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeclient")
def cli() -> None:
    """Learn from data that never leaves this device, and upload a few kilobytes when nobody minds.

    \b
    Example:
      edgeclient run device.toml
    """


for _command in (
    *(run_command, once_command, status_command, pause_command, resume_command, join_command, leave_command),
    *(doctor_command, install_command, uninstall_command, logs_command, store_command, warmup_command),
    *(
        settings_command,
        new_command,
        compile_command,
        evaluate_command,
        export_command,
        predict_command,
        audit_command,
        frame_command,
    ),
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of the command."""
    output.end(cli, "edgeclient", _EXPECTED)


if __name__ == "__main__":
    main()
