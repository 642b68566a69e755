"""Settings: each mistake is one line that names the file and the key."""

import re
from pathlib import Path

import pytest

from edgeclient.settings import ConfigError, Data, Device, Mqtt, Source, load, structure

GOOD = """
device = "pi-7"
task = "har"
directory = "state"
[data]
source = "examples.npz"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "device.toml"
    path.write_text(text)
    return path


def message(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, Device)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert caught.value.__cause__ is None
    return said.removeprefix(f"{path}: ")


def test_a_good_file(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, GOOD), Device)
    source = Source(str(tmp_path / "examples.npz"))
    assert loaded == Device("pi-7", "har", tmp_path / "state", Data(source))
    assert loaded.mqtt == Mqtt()


@pytest.mark.parametrize("source", ["/data/x.npz", "package.module:function"])
def test_sources_that_need_no_folder(tmp_path: Path, source: str) -> None:
    assert load(written(tmp_path, GOOD.replace("examples.npz", source)), Device).data.source == source


def test_absolute_paths_and_options_stay(tmp_path: Path) -> None:
    text = GOOD.replace('"state"', '"/var/lib/x"') + 'options = {x = "a", n = 3}\n[upload]\nretry_after_s = 3\n'
    loaded = load(written(tmp_path, text), Device)
    assert loaded.directory == Path("/var/lib/x")
    assert loaded.data.options == {"x": "a", "n": 3}
    assert isinstance(loaded.upload.retry_after_s, float)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[mqtt]\nprot = 1883\n", "mqtt.prot", "did you mean mqtt.port?"),
        ("[upload]\nretry_after = 3\n", "upload.retry_after", "did you mean upload.retry_after_s?"),
        ("[conditons]\nmax_load = 1\n", "conditons", "did you mean conditions?"),
        ("[training]\nzzz = 1\n", "training.zzz", "known are threads, max_epochs"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, key: str, near: str) -> None:
    said = message(tmp_path, GOOD + text)
    assert said.startswith(f"unknown key {key}: ")
    assert near in said


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (GOOD + '[mqtt]\nport = "1883"\n', "mqtt.port"),
        (GOOD + "[mqtt]\nport = 1883.0\n", "mqtt.port"),
        (GOOD + "[mqtt]\nport = true\n", "mqtt.port"),
        (GOOD + "[mqtt]\nhost = 5\n", "mqtt.host"),
        (GOOD + '[upload]\nretry_after_s = "2"\n', "upload.retry_after_s"),
        (GOOD + "[upload]\nretry_after_s = true\n", "upload.retry_after_s"),
        (GOOD + '[training]\naccel = "cuda"\n', "training.accel"),
        (GOOD.replace('"pi-7"', "7"), "device"),
        (GOOD.replace('"state"', "3"), "directory"),
        (GOOD.replace('"examples.npz"', "[]"), "data.source"),
        ("audit = 1\n" + GOOD, "audit"),
        (GOOD + "options = 3\n", "data.options"),
    ],
)
def test_wrong_types(tmp_path: Path, text: str, key: str) -> None:
    assert re.match(rf"{re.escape(key)}\b", message(tmp_path, text))


def test_a_value_where_a_table_belongs(tmp_path: Path) -> None:
    assert message(tmp_path, "mqtt = 3\n" + GOOD) == "mqtt must be a table"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("mqtt", "port", "0"),
        ("mqtt", "port", "65536"),
        ("mqtt", "keepalive_s", "4"),
        ("training", "threads", "0"),
        ("training", "max_density", "0"),
        ("training", "max_density", "1.01"),
        ("training", "max_density", "nan"),
        ("training", "seed", "-1"),
        ("upload", "window", "0"),
        ("upload", "retry_after_s", "inf"),
        ("upload", "max_frame_bytes", "65537"),
        ("conditions", "max_load", "-0.1"),
        ("conditions", "min_battery_percent", "101"),
    ],
)
def test_out_of_range(tmp_path: Path, section: str, key: str, value: str) -> None:
    said = message(tmp_path, f"{GOOD}[{section}]\n{key} = {value}\n")
    assert re.match(rf"{section}\b", said)
    assert f"{key} is {value}" in said
    assert "allowed are" in said


@pytest.mark.parametrize(
    ("removed", "key"),
    [
        ('device = "pi-7"\n', "device"),
        ('task = "har"\n', "task"),
        ('directory = "state"\n', "directory"),
        ('[data]\nsource = "examples.npz"\n', "data"),
        ('source = "examples.npz"\n', "data.source"),
    ],
)
def test_missing_keys(tmp_path: Path, removed: str, key: str) -> None:
    assert message(tmp_path, GOOD.replace(removed, "")) == f"{key} is missing"


@pytest.mark.parametrize("name", ["a/b", "+", "#", "", "a" * 65, "ü", "a b"])
@pytest.mark.parametrize("key", ["device", "task"])
def test_names_that_cannot_stand_in_a_topic(tmp_path: Path, key: str, name: str) -> None:
    good = {"device": "pi-7", "task": "har"}[key]
    said = message(tmp_path, GOOD.replace(f'{key} = "{good}"', f'{key} = "{name}"'))
    assert key in said
    assert repr(name)[:60] in said


@pytest.mark.parametrize("text", ["device = ", "a = 1\na = 2\n", "[x\n", "=\n"])
def test_bad_toml(tmp_path: Path, text: str) -> None:
    assert message(tmp_path, text).startswith("not valid TOML: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    path.write_bytes(b"\xff\xfe = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(path, Device)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: No such file"):
        load(tmp_path / "nothing.toml", Device)
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, Device)


def test_values_from_elsewhere_name_their_origin() -> None:
    with pytest.raises(ConfigError, match=r"^settings of task har: unknown key hots: did you mean host\?$"):
        structure({"hots": "x"}, Mqtt, where="settings of task har")
    assert structure({"port": 8883}, Mqtt, where="here").port == 8883
