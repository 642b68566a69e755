"""The command `edgeclient`: one command, one file of `commands`."""

from typing import Final

import click

from edgeclient import __version__
from edgeclient.logs import output
from edgeclient.logs.group import Commands

# What a user can act on.
EXPECTED: Final = (
    "builtins:MemoryError",
    "builtins:OSError",
    "edgeclient.compile.errors:CompileError",
    "edgeclient.durable.lock:StoreError",
    "edgeclient.settings:ConfigError",
    "edgeclient.train.batches:DataError",
    "edgeclient.train.trainer:TrainingError",
    "edgeclient.wire.errors:WireError",
)


@click.group(
    cls=Commands,
    places={
        "run": "edgeclient.commands.run:run_command",
        "once": "edgeclient.commands.once:once_command",
        "status": "edgeclient.commands.status:status_command",
        "pause": "edgeclient.commands.pause:pause_command",
        "resume": "edgeclient.commands.pause:resume_command",
        "join": "edgeclient.commands.join:join_command",
        "leave": "edgeclient.commands.leave:leave_command",
        "doctor": "edgeclient.commands.doctor.command:doctor_command",
        "install": "edgeclient.commands.install.command:install_command",
        "uninstall": "edgeclient.commands.install.command:uninstall_command",
        "logs": "edgeclient.commands.install.command:logs_command",
        "store": "edgeclient.commands.store:store_command",
        "warmup": "edgeclient.commands.warmup:warmup_command",
        "settings": "edgeclient.commands.settings:settings_command",
        "new": "edgeclient.commands.new.command:new_command",
        "compile": "edgeclient.commands.compile:compile_command",
        "export": "edgeclient.commands.export:export_command",
        "predict": "edgeclient.commands.predict:predict_command",
        "evaluate": "edgeclient.commands.evaluate:evaluate_command",
        "audit": "edgeclient.commands.audit:audit_command",
        "frame": "edgeclient.commands.frame:frame_command",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="edgeclient")
def cli() -> None:
    """Learn from data that never leaves this device, and upload a few kilobytes when nobody minds.

    \b
    Example:
      edgeclient run device.toml
    """


def main() -> None:
    """Entry point of the command."""
    output.end(cli, "edgeclient", EXPECTED)


if __name__ == "__main__":
    main()
