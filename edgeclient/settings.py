"""Configuration: TOML in, frozen objects out, parsed once at the door.

An unknown key is an error that names the file, the key and the nearest right one. Units are in the names.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NewType, TypeVar

import attrs
import cattrs
from attrs.validators import matches_re

from edgeclient import files
from edgeclient.wire.errors import WireError
from edgeclient.wire.topics import checked

T = TypeVar("T")
# A path to a file or folder, package.module:function, or file.py:function.
Source = NewType("Source", str)


class ConfigError(Exception):
    """A configuration cannot be used; one line that says which file, which key and what to do."""


def nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """What to say to somebody who has named something unknown.

    Example:
        >>> nearest("sorce", ["source", "options"], "data."), nearest("port", ["source", "options"])
        ('did you mean data.source?', 'known are source, options')
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"


def within(low: float, high: float) -> Any:
    """An attrs validator: low <= value <= high."""

    def check(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
        if not low <= value <= high:
            raise ValueError(f"{attribute.name} is {value}, allowed are {low} to {high}")

    return check


def is_name(_: Any, attribute: "attrs.Attribute[Any]", value: str) -> None:
    """An attrs validator: a device or task id."""
    try:
        checked(value)
    except WireError as error:
        raise ValueError(f"{attribute.name}: {error.detail}") from None


@attrs.frozen
class Mqtt:
    """Where the MQTT broker is, and how the two know each other; the password is never in here, only its file."""

    host: str = "127.0.0.1"
    # Encrypts, and verifies that the broker's certificate is for `host`. Without it, who listens can read the password.
    tls: bool = False
    # 1883, with TLS 8883.
    port: int = attrs.field(validator=within(1, 65535))
    # A device that is silent this long counts as offline; half of it passes between pings.
    keepalive_s: int = attrs.field(default=30, validator=within(5, 3600))
    # Certificates (PEM) of who may sign the broker's; without it, those that the system trusts.
    ca_file: Path | None = None
    # This device's own certificate and key, for brokers that ask for one.
    cert_file: Path | None = None
    key_file: Path | None = None
    # The broker's access rules know a device by it: use the device's id.
    username: str = ""
    # One line; only its owner (and group) may read it.
    password_file: Path | None = None

    @port.default
    def _usual_port(self) -> int:
        return 8883 if self.tls else 1883

    def __attrs_post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give both cert_file and key_file, or neither")
        if (self.ca_file or self.cert_file) and not self.tls:
            raise ValueError("certificates need tls = true")
        if self.password_file is not None and not self.username:
            raise ValueError("password_file needs username")


@attrs.frozen
class Data:
    """Local examples: an .npz or CSV file, a folder of .npz or .npy files, a SQLite query, or a function."""

    source: Source
    # Array names in a file, {x = "...", labels = "..."}; labels and columns of a CSV file; query, labels and since of a
    # SQLite database; keyword arguments of a function.
    options: dict[str, Any] = attrs.field(factory=dict)
    # This fraction of the examples is never trained on: it measures what a round was worth.
    holdout: float = attrs.field(default=0.0, validator=within(0, 0.9))
    # For sources that grow: a file keeps the newest so many examples, and as many drawn evenly from all that ever came;
    # every round learns from these. 0: no such file. It takes 2 + holdout times so many examples on the disk.
    replay_examples: int = attrs.field(default=0, validator=within(0, 10_000_000))


@attrs.frozen
class Training:
    """What this device grants a local round; the task may ask for less, never for more."""

    threads: int = attrs.field(default=1, validator=within(1, 64))
    max_epochs: int = attrs.field(default=10, validator=within(1, 1000))
    # No further step begins after this time: the round ends with what was learnt, and the device listens again.
    max_seconds: float = attrs.field(default=600.0, validator=within(1, 86400))
    # Examples in memory at once; larger batches are accumulated from several. Smaller saves memory and costs time.
    max_batch: int = attrs.field(default=1024, validator=within(1, 1 << 20))
    # "native" needs the ONNX Runtime training package and a bundle compiled with --native.
    runtime: Literal["compiled", "native"] = "compiled"
    max_density: float = attrs.field(default=0.05, validator=within(1e-9, 1.0))
    # Share of the time that training works; the rest of it rests, and the board stays cool.
    duty_percent: int = attrs.field(default=100, validator=within(1, 100))
    # Added to the process's niceness, so that everybody else goes first.
    nice: int = attrs.field(default=10, validator=within(0, 19))
    accel: Literal["auto", "numpy", "numba"] = "auto"
    seed: int = attrs.field(default=0, validator=within(0, 2**63 - 1))


@attrs.frozen
class Upload:
    """How finished frames leave the device."""

    # Frames without a receipt that may be under way at once, at most. Four at first: more where receipts come, fewer
    # where the link breaks.
    window: int = attrs.field(default=32, validator=within(1, 64))
    # A frame without a receipt is sent again after this time, doubling up to 8 s.
    retry_after_s: float = attrs.field(default=2.0, validator=within(0.1, 300))
    # A link that keeps breaking gets frames of 16384 bytes at most, whatever stands here.
    max_frame_bytes: int = attrs.field(default=65536, validator=within(256, 65536))
    # The retained status follows changes, at most this often; a status takes half the bytes of a small frame.
    status_every_s: float = attrs.field(default=5.0, validator=within(0.1, 86400))
    # ... and goes out at least this often, so that a device that hangs is noticed: 96 times a day takes about 40 kB.
    heartbeat_s: float = attrs.field(default=900.0, validator=within(1, 1e7))
    # All frames of an update together take at most so many bytes; 0: what the task says. Fewer entries go then.
    max_update_bytes: int = attrs.field(default=0, validator=within(0, 1 << 40))
    # How precise the values are: about 1.0 to 1.6, 1, 4, 8, 16 and 32 bits each. What rounding leaves goes out later.
    values: Literal["step", "sign", "int4", "int8", "bfloat16", "float32"] = "step"
    # What waits for a link beyond this is taken back, the least important and oldest first: nothing is lost, it goes
    # out with the next update. If even that leaves no room, rounds send nothing, and their deltas wait.
    max_outbox_bytes: int = attrs.field(default=16 << 20, validator=within(1, 1 << 40))
    max_outbox_age_s: float = attrs.field(default=7 * 86_400.0, validator=within(1, 1e9))


def _by_preset(eager: float | str, balanced: float | str, frugal: float | str, check: Any = None) -> Any:
    """A knob whose default is that of the preset."""
    defaults = {"eager": eager, "balanced": balanced, "frugal": frugal}
    return attrs.field(default=attrs.Factory(lambda made: defaults[made.preset], takes_self=True), validator=check)


@attrs.frozen
class Conditions:
    """When training and sending would disturb the owner.

    Example:
        >>> Conditions("frugal", max_battery_c=0).max_temperature_c
        70.0
    """

    # "eager" cares for power and heat alone, "balanced" stays out of the way, "frugal" trains on a charger only and
    # never sends over a metered link. What is given below takes the place of the preset's; 0 switches a limit off.
    preset: Literal["eager", "balanced", "frugal"] = "balanced"
    train_on_battery: bool = _by_preset(eager=True, balanced=True, frugal=False)
    # On battery, training and sending wait below this charge (30 %, as Android's federated compute has it); boards
    # without a battery are on mains.
    min_battery_percent: int = _by_preset(30, 30, 50, within(0, 100))
    # Training stops when the battery is hotter, or the board.
    max_battery_c: float = _by_preset(38.0, 38.0, 35.0, within(0, 100))
    max_temperature_c: float = _by_preset(82.0, 75.0, 70.0, within(0, 150))
    # Percent of time in which something waits for a core, above which training waits (PSI) ...
    max_pressure: float = _by_preset(0.0, 40.0, 15.0, within(0, 100))
    # ... and where the kernel does not tell, the 1-minute load average per core.
    max_load: float = _by_preset(0.0, 1.5, 0.7, within(0, 1000))
    # Links that cost: send there "yes" always, "late" when frames have waited for metered_after_s, "no" never.
    metered: Literal["yes", "late", "no"] = _by_preset("yes", "late", "no")
    # Whether training goes on while its update could not leave for free.
    train_metered: bool = _by_preset(eager=True, balanced=False, frugal=False)
    metered_after_s: float = attrs.field(default=6 * 3600.0, validator=within(0, 1e8))
    # Sent and received there, models and statuses included.
    metered_day_bytes: int = _by_preset(1 << 40, 1 << 20, 1 << 20, within(0, 1 << 50))
    metered_month_bytes: int = _by_preset(1 << 40, 20 << 20, 20 << 20, within(0, 1 << 50))
    # "22:00-07:00": nothing is trained, sent or fetched then, by the board's local time. The connection stays: its
    # keep-alive, HELLO when it begins and short statuses, also where metered = "no".
    quiet: str = attrs.field(default="", validator=matches_re(r"(([01]\d|2[0-3]):[0-5]\d(-(?!$)|$)){2}|"))
    min_free_disk_bytes: int = attrs.field(default=64 << 20, validator=within(0, 1 << 50))
    # SD cards wear: a round writes 2.1 times the model, its frames four times. When a day's allowance is used up,
    # rounds come more slowly; 0: no limit.
    max_written_bytes_per_day: int = attrs.field(default=4 << 30, validator=within(0, 1 << 50))


@attrs.frozen
class HomeAssistant:
    """Battery, temperature, last upload, model version and activity as sensors of Home Assistant; off unless given."""

    # As in Home Assistant's MQTT integration; the MQTT broker must let the device write PREFIX/sensor/DEVICE/+/config.
    discovery_prefix: str = attrs.field(default="homeassistant", validator=matches_re(r"[\w-]+(/[\w-]+){0,7}"))


@attrs.frozen
class Device:
    """A device's configuration file."""

    device: str = attrs.field(validator=is_name)
    task: str = attrs.field(validator=is_name)
    directory: Path
    data: Data
    mqtt: Mqtt = Mqtt()
    training: Training = Training()
    upload: Upload = Upload()
    conditions: Conditions = Conditions()
    home_assistant: HomeAssistant | None = None
    # Keeps a second account of what was trained, apart from the store; for tests and the demo.
    audit: bool = False


def load(path: Path, kind: type[T]) -> T:
    """The TOML file at `path` as `kind`; relative paths in it start from the file's folder.

    Raises:
        ConfigError: missing, not UTF-8, not TOML, an unknown or missing key, a wrong type or value.
    """
    try:
        values = tomllib.loads(files.text(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return structure(values, kind, where=str(path), folder=path.parent)


def structure(values: Mapping[str, Any], kind: type[T], *, where: str, folder: Path = Path()) -> T:
    """`values` as `kind`; `where` names their origin in errors. See `load`."""
    _check_keys(values, kind, where, "")
    try:
        return _converter(folder).structure(values, kind)
    except Exception as error:  # noqa: BLE001 (cattrs groups whatever validators raise)
        reason, _, place = cattrs.transform_error(error, path="", format_exception=_reason)[0].rpartition(" @ ")
        raise ConfigError(": ".join(filter(None, [where, place.lstrip("."), reason]))) from None


@lru_cache(maxsize=4)
def _converter(folder: Path) -> cattrs.Converter:
    """Making one takes 20 ms."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(Path, lambda value, _: folder / _strict(value, str))
    converter.register_structure_hook_func(lambda kind: kind is Source, lambda value, _: _source(value, folder))
    for number in (int, float):  # int | "auto", written as a Literal
        hook = partial(_auto_or, number, converter)
        converter.register_structure_hook(number | Literal["auto"], hook)
    for exact in (str, int, bool):
        converter.register_structure_hook(exact, _strict)
    converter.register_structure_hook(float, lambda value, _: float(_strict(value, int, float)))
    return converter


def _source(value: Any, folder: Path) -> Source:
    source = _strict(value, str)
    module, _, name = source.rpartition(":")
    is_module = bool(module) and name.isidentifier() and not module.endswith(".py")
    return Source(source if is_module else str(folder / source))


def _auto_or(number: type, converter: cattrs.Converter, value: Any, _: Any) -> Any:
    return value if value == "auto" else converter.structure(value, number)


def _strict(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"{value!r} is not {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _check_keys(values: Any, kind: type, where: str, prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a table")
    known = {field.name: field for field in (attrs.fields if attrs.has(kind) else dataclasses.fields)(kind)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {prefix}{key}: {nearest(key, known, prefix)}")
        part = known[key].type
        if isinstance(part, type) and (attrs.has(part) or dataclasses.is_dataclass(part)):
            _check_keys(value, part, where, f"{prefix}{key}.")
    for name, field in known.items():
        if field.default in (attrs.NOTHING, dataclasses.MISSING) and name not in values:
            raise ConfigError(f"{where}: {prefix}{name} is missing")


def _reason(error: BaseException, _: Any) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
