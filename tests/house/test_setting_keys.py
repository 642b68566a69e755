"""Where to look a setting up: every key says its sentence, and the commands print all of them."""

import json
from typing import Any, Final

import pytest
from click.testing import CliRunner

import broker.cli
import edgeclient.cli
from broker.settings import Aggregator, Task
from edgeclient.settings import Conditions, ConfigError, Device, structure
from edgeclient.settings.listing import Key, keys_of
from edgeclient.train.sources import delimited, query, table

NUMBERS: Final = {str(int), str(float)}


@pytest.mark.parametrize("kind", [Device, Aggregator, Task])
def test_every_key_has_a_sentence_and_a_default_within_its_limits(kind: type) -> None:
    keys = list(keys_of(kind))
    assert len({each.key for each in keys}) == len(keys) > 10
    assert [each.key for each in keys if len(each.about) < 8 or "\n" in each.about] == []
    for each in keys:
        for value in (each.default, *each.presets.values()):
            assert not isinstance(value, int | float) or each.low is None or each.low <= value <= (each.high or 0), (
                each.key
            )


def test_every_number_has_limits() -> None:
    """A number without a rule would be called by its Python type."""
    assert [each.key for kind in (Device, Aggregator, Task) for each in keys_of(kind) if each.kind in NUMBERS] == []


def asked(program: Any, *words: str) -> str:
    done = CliRunner().invoke(program, ["settings", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_a_device_s_keys() -> None:
    told = asked(edgeclient.cli.cli)
    assert "upload.heartbeat_s = 900 s    number, 1 to 10000000\n" in told
    assert 'conditions.metered = "yes" | "late" | "no" (eager | balanced | frugal)    "yes" | "late" | "no"\n' in told
    assert "device    required    string\n" in told
    assert max(map(len, told.splitlines())) <= 120


def test_a_search() -> None:
    said = asked(edgeclient.cli.cli, "Keepalive").splitlines()
    assert said[0] == "[mqtt]"
    assert said[1].startswith("    Where the MQTT broker is")
    assert said[-2] == "mqtt.keepalive_s = 30 s    integer, 5 to 3600"
    (found,) = json.loads(asked(edgeclient.cli.cli, "duty", "--json"))["device.toml"]
    assert Key(**{**found, "choices": ()}) == next(
        each for each in keys_of(Device) if each.key == "training.duty_percent"
    )
    with pytest.raises(ConfigError, match=r"no key of device\.toml speaks of 'xyzzy'"):
        asked(edgeclient.cli.cli, "xyzzy")


def test_options_of_tables_are_listed() -> None:
    told = asked(edgeclient.cli.cli, "data.options")
    for name in (*table.OPTIONS, *delimited.OPTIONS, *query.OPTIONS):
        assert f"\ndata.options.{name}    of " in told


def test_an_aggregator_s_keys() -> None:
    told = asked(broker.cli.cli)
    assert (
        told.index("# broker.toml\ndirectory    required")
        < told.index("# task.toml\n")
        < told.index('\ngoal = "auto"    "auto" or integer, 1 to 4096\n')
    )
    found = json.loads(asked(broker.cli.cli, "density", "--json"))
    assert "policy.density" in {each["key"] for each in found["task.toml"]}


def test_a_rule_holds_where_a_file_is_read() -> None:
    with pytest.raises(ConfigError, match=r"^here: quiet is '25:00', wanted is one like '22:00-07:00'$"):
        structure({"quiet": "25:00"}, Conditions, where="here")
