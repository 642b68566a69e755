"""The account that installs: where its own services are, if it has a place for them."""

import os
from pathlib import Path

from edgeclient.settings import ConfigError


def home() -> Path | None:
    """The home of the account; None for one without, as numbers in containers are."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def units_of_user() -> Path | None:
    """Where systemd looks for an account's own units; None without a home."""
    given, own = os.environ.get("XDG_CONFIG_HOME"), home()
    return Path(given) if given else own and own / ".config"


def homeless() -> ConfigError:
    """For whoever asks for a service of an account that has no place for one."""
    return ConfigError(
        f"this account (number {os.geteuid()}) has no home, where its services would be: set HOME, or let root install "
        "one of the machine with --systemd --system"
    )
