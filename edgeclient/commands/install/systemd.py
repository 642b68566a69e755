"""Units for systemd: a sandboxed system service, or a service of one user; each as a process that stays or a timer."""

from pathlib import Path
from typing import Final

from edgeclient.commands.install.service import Command, Installation, Job, SealedFile, shipped
from edgeclient.settings import ConfigError

ETC: Final = Path("/etc")
STATE: Final = Path("/var/lib/edgeclient")
# ProtectHome= and PrivateTmp= of the unit.
_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 (compared with)
# Quoting covers the rest; these mean something to systemd even then.
_SPECIAL: Final = frozenset("\"'\\$%")


def system(job: Job, etc: Path = ETC) -> Installation:
    """A service of the machine, as the user edgeclient."""
    account = SealedFile(etc / "sysusers.d" / "edgeclient.conf", shipped("systemd-system/edgeclient.sysusers"))
    secrets = [path for path in (job.settings.mqtt.password_file, job.settings.mqtt.key_file) if path is not None]
    return _service(
        job,
        "systemd-system",
        etc / "systemd" / "system",
        ("systemctl",),
        logs="--unit",
        account=(account,),
        notes=tuple(f"let the service read {path}: chown edgeclient {path}" for path in secrets),
    )


def user(job: Job, folder: Path) -> Installation:
    """A service of the user who calls; `folder` is ~/.config."""
    return _service(
        job,
        "systemd-user",
        folder / "systemd" / "user",
        ("systemctl", "--user"),
        logs="--user-unit",
        notes=("it runs while you are logged in; to let it run always: loginctl enable-linger",),
    )


def check_paths(job: Job) -> None:
    """Whether the paths can stand in a unit.

    Raises:
        ConfigError: systemd would take them for something else.
    """
    for path in (job.program, job.config):
        if not str(path).isprintable() or _SPECIAL & set(str(path)):
            raise ConfigError(
                f"{str(path)!r} cannot stand in a systemd unit: use a path without quotes, backslashes, $ and %"
            )


def check_reach(job: Job) -> None:
    """Whether a system service sees what it needs, and may write where it must.

    Raises:
        ConfigError: it does not.
    """
    source = Path(job.settings.data.source.partition(":")[0])
    for what, path in (("program", job.program), ("configuration", job.config), ("data", source)):
        if path.is_absolute() and any(map(path.is_relative_to, _HIDDEN)):
            raise ConfigError(
                f"{path} ({what}) is hidden from a system service, which sees no home and no /tmp: "
                "move it, for example to /opt, /etc/edgeclient or /var/lib/edgeclient, or install with --user"
            )
    if not job.settings.directory.is_relative_to(STATE):
        raise ConfigError(
            f"{job.config}: directory is {job.settings.directory}, but a system service writes in {STATE} alone: "
            f'set directory = "{STATE / job.task}", or install with --user'
        )


def _service(
    job: Job,
    kind: str,
    units: Path,
    systemctl: Command,
    *,
    logs: str,
    account: tuple[SealedFile, ...] = (),
    notes: tuple[str, ...],
) -> Installation:
    name = "edgeclient-once@" if job.once else "edgeclient@"
    suffixes = ("service", "timer") if job.once else ("service",)
    active = f"{name}{job.task}.{suffixes[-1]}"
    reload = (*systemctl, "daemon-reload")
    return Installation(
        f"{active} of {'systemd' if account else 'your systemd'}",
        files=(SealedFile(units / f"{name}{job.task}.service.d" / "edgeclient.conf", drop_in(job)),),
        shared=account
        + tuple(SealedFile(units / f"{name}.{each}", shipped(f"{kind}/{name}.{each}")) for each in suffixes),
        others=((units, f"{name}*.service.d/edgeclient.conf"),),
        start=(
            *((("systemd-sysusers",),) if account else ()),
            reload,
            (*systemctl, "enable", active),
            # Not `enable --now`, which would leave an old one running.
            (*systemctl, "restart", active),
        ),
        stop=((*systemctl, "disable", "--now", active),),
        stopped=(reload,),
        logs=("journalctl", f"{logs}={name}{job.task}.service"),
        notes=notes,
    )


def drop_in(job: Job) -> str:
    """What differs between machines."""
    verb = "once" if job.once else "run"
    lines = [
        "# What is particular to this machine and task.",
        "[Service]",
        "ExecStart=",
        f'ExecStart="{job.program}" {verb} "{job.config}"',
        f"WorkingDirectory={job.config.parent}",
    ]
    if job.executable_memory:
        # Compiled before the first round, and cached; without it every round would do so in its turn.
        lines.append(f'ExecStartPre=-"{job.program}" warmup')
    else:
        lines += ["# numba is not installed; install again when you have added it.", "MemoryDenyWriteExecute=yes"]
    return "\n".join(lines) + "\n"
