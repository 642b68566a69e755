"""Scripts for Termux on a phone: one for Termux:Boot, or one for Android's job scheduler."""

import shlex
import zlib
from pathlib import Path
from typing import Final

from edgeclient.services.installation import Installation, Job, SealedFile, shipped

_PERIOD_MS: Final = 6 * 3600 * 1000  # Android's least is 15 minutes


def service(job: Job, home: Path) -> Installation:
    """What starts a job on a phone; `home` is Termux's."""
    log = job.directory / "edgeclient.log"
    # Once begun anew, the log is another file.
    logs, follow = ("tail", str(log)), "-F"
    program = (str(job.program), job.verb, str(job.config), "--log-file", str(log))
    name = f"edgeclient-{job.instance}"
    if not job.once:
        script = SealedFile(home / ".termux" / "boot" / name, _filled("termux/boot", job, log), 0o700)
        now = f"{shlex.quote(str(script.path))} &"
        notes = (
            f"it starts with the phone, once you have opened the app Termux:Boot; to start it now: {now}",
            "Android 12 and later end what works long in the background: see Termux in edgeclient/README.md",
        )
        return Installation(
            "a script of Termux:Boot",
            (script,),
            processes=((str(script.path),), program),
            logs=logs,
            follow=follow,
            notes=notes,
        )
    script = SealedFile(home / ".termux" / "edgeclient" / name, _filled("termux/job", job, log), 0o700)
    # Jobs have numbers; the same task always gets the same one.
    scheduler = ("termux-job-scheduler", "--job-id", str(zlib.crc32(name.encode()) & 0x7FFF_FFFF))
    conditions = ("--period-ms", str(_PERIOD_MS), "--network", "unmetered", "--charging", "true", "--persisted", "true")
    return Installation(
        "a job of Termux:API",
        (script,),
        start=((*scheduler, "--script", str(script.path), *conditions),),
        stop=((*scheduler, "--cancel"),),
        processes=((str(script.path),), program),
        logs=logs,
        follow=follow,
    )


def _filled(name: str, job: Job, log: Path) -> str:
    """The shipped script with this machine's paths in its three assignments."""
    lines = shipped(name).splitlines(keepends=True)
    values = {"edgeclient": job.program, "config": job.config, "log": log}
    for key, path in values.items():
        (at,) = (number for number, line in enumerate(lines) if line.startswith(f"{key}="))
        lines[at] = f"{key}={shlex.quote(str(path))}\n"
    return "".join(lines)
