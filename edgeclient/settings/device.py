"""A device's configuration file, and the tables in it that are not conditions."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs

from edgeclient.settings.conditions import Conditions
from edgeclient.settings.keys import Source, ruled
from edgeclient.wire.fields import checked, integer, number, pattern
from edgeclient.wire.topics import PREFIX
from edgeclient.wire.topics import checked as name

MAX_PACKET_BYTES: Final = 1_000_000


@attrs.frozen(field_transformer=ruled)
class Mqtt:
    """Where the MQTT broker is, and how the two know each other; the password is never in here, only its file."""

    host: Annotated[str, "name or address of the MQTT broker"] = "127.0.0.1"
    tls: Annotated[
        bool, "encrypts, and verifies that the certificate is for `host`; without it, listeners read the password"
    ] = False
    port: Annotated[int, integer(1, 65535), "of the broker; 8883 by default with tls = true"] = attrs.field()
    keepalive_s: Annotated[
        int, integer(5, 3600), "a device silent this long counts as offline; two thirds of it pass between pings"
    ] = 30
    prefix: Annotated[
        str,
        pattern(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,7}", "site/edge"),
        "what every topic of ours begins with, on both sides alike",
    ] = PREFIX
    client_id: Annotated[
        str,
        pattern(r"[A-Za-z0-9_.:-]{0,64}", "pi-7"),
        "our name at the broker, instead of one with a random end, which commands beside it still add; two of one name"
        " throw each other out",
    ] = ""
    max_packet_bytes: Annotated[
        int,
        integer(2048, 1 << 28),
        "the broker's limit on a message with topic and header, which frames and chunks keep; one that speaks MQTT 5"
        " tells it when it hangs up",
    ] = MAX_PACKET_BYTES
    ca_file: Annotated[
        Path | None, "certificates (PEM) of who may sign the broker's; without it, those that the system trusts"
    ] = None
    cert_file: Annotated[Path | None, "this device's own certificate (PEM), for brokers that ask for one"] = None
    key_file: Annotated[Path | None, "the key of that certificate (PEM)"] = None
    username: Annotated[str, "the broker's access rules know a device by it: use the device's id"] = ""
    password_file: Annotated[Path | None, "the password on one line; only its owner (and group) may read it"] = None

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


@attrs.frozen(field_transformer=ruled)
class Data:
    """Local examples: an .npz or CSV file, a folder of such or of .npy files, a SQLite query, or a function."""

    source: Annotated[
        Source,
        ".npz, CSV or SQLite file, a folder of .npz, CSV or .npy files, package.module:function, file.py:function",
    ]
    options: Annotated[
        dict[str, Any],
        "array names in a file, {x = '...', labels = '...'}; of tables what follows; arguments of a function",
    ] = attrs.field(factory=dict)
    holdout: Annotated[
        float, number(0, 0.9), "this fraction of the examples is never trained on: it measures what a round was worth"
    ] = 0.0
    replay_examples: Annotated[
        int,
        integer(0, 10_000_000),
        "of sources that grow, a file keeps the newest so many and as many of all that ever came, on"
        " 2 + holdout times their disk; 0: no such file",
    ] = 0


@attrs.frozen(field_transformer=ruled)
class Training:
    """What this device grants a local round; the task may ask for less, never for more."""

    threads: Annotated[int, integer(1, 64), "processor cores that training may use"] = 1
    max_epochs: Annotated[int, integer(1, 1000), "passes over the data in a round, at most"] = 10
    max_seconds: Annotated[
        float, number(1, 86400), "seconds after which no step of a round begins: it ends with what was learnt"
    ] = 600.0
    max_batch: Annotated[
        int, integer(1, 1 << 20), "examples in memory at once; larger batches are accumulated, which costs time"
    ] = 1024
    runtime: Annotated[
        Literal["compiled", "native"], "native needs the ONNX Runtime training package and compile --native"
    ] = "compiled"
    max_density: Annotated[float, number(1e-9, 1.0), "fraction of coordinates that an update keeps, at most"] = 0.05
    duty_percent: Annotated[
        int, integer(1, 100), "share of the time that training works; the rest of it rests, and the board stays cool"
    ] = 100
    nice: Annotated[int, integer(0, 19), "added to the process's niceness, so that everybody else goes first"] = 10
    accel: Annotated[Literal["auto", "numpy", "numba"], "which kernels select and encode; same results"] = "auto"
    seed: Annotated[int, integer(0, 2**63 - 1), "of the order in which examples are drawn"] = 0


@attrs.frozen(field_transformer=ruled)
class Upload:
    """How finished frames leave the device."""

    window: Annotated[
        int, integer(1, 64), "frames without a receipt under way at once, at most; four at first, more where they come"
    ] = 32
    retry_after_s: Annotated[
        float,
        number(0.1, 300),
        "a frame without a receipt is sent again after this time, doubling up to 8 s; to 300 s where none comes at all",
    ] = 2.0
    max_frame_bytes: Annotated[
        int,
        integer(256, 65536),
        "of a frame with topic and header, at most; on a link that keeps breaking 16384, whatever stands here",
    ] = 65536
    status_every_s: Annotated[
        float, number(0.1, 86400), "the retained status follows changes at most this often; it is half a small frame"
    ] = 5.0
    heartbeat_s: Annotated[
        float, number(1, 1e7), "and at least this often, so that a hung device is noticed: about 40 kB a day at 900"
    ] = 900.0
    max_update_bytes: Annotated[
        int, integer(0, 1 << 40), "all frames of an update together; fewer entries go then; 0: what the task says"
    ] = 0
    values: Annotated[
        Literal["step", "sign", "int4", "int8", "bfloat16", "float32"],
        "precision: about 1.0 to 1.6, 1, 4, 8, 16 and 32 bits each; what rounding leaves goes out later",
    ] = "step"
    max_outbox_bytes: Annotated[
        int,
        integer(1, 1 << 40),
        "what waits for a link beyond this is taken back, the least important and oldest first: nothing is lost, it"
        " goes out with the next update",
    ] = 16 << 20
    max_outbox_age_s: Annotated[float, number(1, 1e9), "frames that wait longer are taken back likewise"] = 7 * 86_400.0


@attrs.frozen(field_transformer=ruled)
class HomeAssistant:
    """Battery, temperature, last upload, model version and activity as sensors of Home Assistant; off unless given."""

    discovery_prefix: Annotated[
        str,
        pattern(r"[\w-]+(/[\w-]+){0,7}", "a topic"),
        "as in its MQTT integration; the broker must let the device write PREFIX/sensor/DEVICE/+/config",
    ] = "homeassistant"


@attrs.frozen(field_transformer=ruled)
class Device:
    """A device's configuration file."""

    device: Annotated[str, checked(name), "id of this device, one of its own in the task: A-Z a-z 0-9 _ -, 64 at most"]
    task: Annotated[str, checked(name), "the task that it takes part in, as on the server"]
    directory: Annotated[Path, "folder for its state: models, outbox, residual"]
    data: Data
    mqtt: Mqtt = Mqtt()
    training: Training = Training()
    upload: Upload = Upload()
    conditions: Conditions = attrs.field(factory=Conditions)
    home_assistant: HomeAssistant | None = None
    audit: Annotated[bool, "keeps a second account of what was trained, apart from the store; for tests"] = False

    @property
    def store(self) -> Path:
        """The folder of outbox and residual; each task has one of its own."""
        return self.directory / "store" / self.task

    @property
    def models(self) -> Path:
        """The folder of model versions; each task has one of its own."""
        return self.directory / "models" / self.task
