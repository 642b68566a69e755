"""A configuration that is not taken leaves the old one as it was."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from edgeclient.commands.run import devices, opened
from edgeclient.settings import ConfigError
from edgeclient.settings.signals import Signals


class Quiet:
    def begin(self, _: object) -> None:
        pass


def test_a_password_file_that_is_missing_keeps_no_directory(tmp_path: Path) -> None:
    """The old configuration goes on in the same one, within the handler of the error."""
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 2)), labels=np.zeros(2))
    signals, config = cast("Signals", Quiet()), tmp_path / "device.toml"
    said = 'device = "pi"\ntask = "t"\ndirectory = "data"\n[data]\nsource = "x.npz"\n'
    config.write_text(said)
    every = devices([config])
    config.write_text(f'{said}[mqtt]\nusername = "pi"\npassword_file = "gone"\n')
    try:
        opened(devices([config]), signals)
        pytest.fail("it was taken")
    except ConfigError:
        (agent,) = opened(every, signals)
    agent.close()
