"""Units for systemd: a sandboxed system service, or a service of one user; each as a process that stays or a timer."""

from pathlib import Path
from typing import Final

from edgeclient.services.account import units_of_user
from edgeclient.services.installation import Command, Installation, Job, SealedFile, shipped
from edgeclient.settings import ConfigError

ETC: Final = Path("/etc")
# ProtectHome= and PrivateTmp= of the unit.
_HIDDEN: Final = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))  # noqa: S108 (compared with)
# Quoting covers the rest; these mean something to systemd even then.
_SPECIAL: Final = frozenset("\"'\\$%")


def service(job: Job, *, of_machine: bool) -> Installation | None:
    """One of the machine, or of the account that calls; None where that has no home.

    Raises:
        ConfigError: it could not run so; the text says why.
    """
    _check_paths(job)
    if of_machine:
        _check_reach(job)
        return system(job)
    units = units_of_user()
    return None if units is None else user(job, units)


def candidates(job: Job) -> list[Installation]:
    """Both, whether they are installed or not."""
    units = units_of_user()
    return [system(job), *([] if units is None else [user(job, units)])]


def system(job: Job, etc: Path = ETC) -> Installation:
    """A service of the machine, as a user that is named as the program."""
    name = job.program.name
    account = SealedFile(etc / "sysusers.d" / f"{name}.conf", shipped(f"systemd-system/{name}.sysusers"))
    return _service(
        job,
        "systemd-system",
        etc / "systemd" / "system",
        ("systemctl",),
        logs="--unit",
        account=(account,),
        notes=tuple(f"let the service read {path}: chown {name} {path}" for path in job.secrets),
    )


def user(job: Job, folder: Path) -> Installation:
    """A service of the user who calls; `folder` is where their units are: ~/.config."""
    return _service(
        job,
        "systemd-user",
        folder / "systemd" / "user",
        ("systemctl", "--user"),
        logs="--user-unit",
        notes=("it runs while you are logged in; to let it run always: loginctl enable-linger",),
    )


def _check_paths(job: Job) -> None:
    """Whether the paths can stand in a unit.

    Raises:
        ConfigError: systemd would take them for something else.
    """
    for path in (job.program, job.config):
        if not str(path).isprintable() or _SPECIAL & set(str(path)):
            raise ConfigError(
                f"{str(path)!r} cannot stand in a systemd unit: use a path without quotes, backslashes, $ and %"
            )


def _check_reach(job: Job) -> None:
    """Whether a system service sees what it needs, and may write where it must.

    Raises:
        ConfigError: it does not.
    """
    state = Path("/var/lib") / job.program.name
    needed = (("program", job.program), ("configuration", job.config), ("its Python", job.interpreter))
    for what, path in (*needed, *(("data", path) for path in job.data)):
        if path.is_absolute() and any(map(path.is_relative_to, _HIDDEN)):
            raise ConfigError(
                f"{path} ({what}) is hidden from a system service, which sees no home and no /tmp: "
                f"move it, for example to /opt, /etc/{job.program.name} or {state}, or install with --user"
            )
    if not job.directory.is_relative_to(state):
        raise ConfigError(
            f"{job.config}: directory is {job.directory}, but a system service writes in {state} alone: "
            f'set directory = "{state / job.instance}", or install with --user'
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
    name = f"{job.program.name}{'-once' * job.once}@"
    suffixes = ("service", "timer") if job.once else ("service",)
    active, process = f"{name}{job.instance}.{suffixes[-1]}", f"{name}{job.instance}.service"
    reload = (*systemctl, "daemon-reload")
    return Installation(
        f"{active} of {'systemd' if account else 'your systemd'}",
        files=(SealedFile(units / f"{process}.d" / f"{job.program.name}.conf", drop_in(job)),),
        shared=account
        + tuple(SealedFile(units / f"{name}.{each}", shipped(f"{kind}/{name}.{each}")) for each in suffixes),
        others=((units, f"{name}*.service.d/{job.program.name}.conf"),),
        start=(
            *((("systemd-sysusers",),) if account else ()),
            reload,
            (*systemctl, "enable", active),
            # Not `enable --now`, which would leave an old one running.
            (*systemctl, "restart", active),
        ),
        stop=(
            (*systemctl, "disable", "--now", active),
            # A timer leaves the round that it has begun.
            *(((*systemctl, "stop", process),) if job.once else ()),
            # A pattern: one that systemd has forgotten already is no error.
            (*systemctl, "reset-failed", f"{name}{job.instance}.*"),
        ),
        stopped=(reload,),
        logs=("journalctl", f"{logs}={process}"),
        notes=notes,
    )


def drop_in(job: Job) -> str:
    """What differs between machines."""
    lines = [
        "# What is particular to this machine and task.",
        "[Service]",
        "ExecStart=",
        f'ExecStart="{job.program}" {job.verb} "{job.config}"',
        f"WorkingDirectory={job.config.parent}",
    ]
    if job.executable_memory:
        # Compiled before the first round, and cached; without it every round would do so in its turn.
        lines.append(f'ExecStartPre=-"{job.program.with_name("edgeclient")}" warmup')
    else:
        lines += ["# numba is not installed; install again when you have added it.", "MemoryDenyWriteExecute=yes"]
    return "\n".join(lines) + "\n"
