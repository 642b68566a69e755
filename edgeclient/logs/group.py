"""A command line whose commands are imported when they are wanted: all of them take half a second, on a board two."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class Commands(click.Group):
    """Commands by name, and where each stands.

    Args:
        places: name of a command → `module:attribute`.

    Example:
        >>> group = Commands(places={"status": "edgeclient.commands.status:status_command"})
        >>> group.get_command(click.Context(group), "status").name
        'status'
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click.Group."""
        del ctx
        return sorted(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click.Group."""
        del ctx
        place = self.places.get(cmd_name)
        return None if place is None else named(place)


def named(place: str) -> Any:
    """What stands at `module:attribute`."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
