"""Containers without an engine: what a Containerfile and a Compose file ask for, made of Linux' own namespaces.

Each is PID 1 of its own, on a root of its own that is read-only, as an account that is a number, without capabilities,
home or anybody else's environment. All of them share one network that nobody else is on.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "firmware_configs" / "container"
ACCOUNT: Final = 4242
_PROGRAMS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True)
class Container:
    """One; `mounts` are source, target and whether it may be written."""

    command: Sequence[str]
    mounts: Sequence[tuple[Path, str, bool]] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    tmpfs: Sequence[str] = ("/tmp",)

    def script(self, root: Path, hosts: Path) -> str:
        """For sh as PID 1 of new namespaces; `root` is an empty folder."""
        lines = ["set -e", "mount --make-rprivate /", f"mount -t tmpfs none {root}", f"cd {root}"]
        for name in ("bin", "sbin", "lib", "lib64", "lib32"):
            if Path("/", name).is_symlink():
                lines.append(f"ln -s {Path('/', name).readlink()} {name}")
            elif Path("/", name).is_dir():
                lines += _bound(Path("/", name), f"/{name}", writable=False)
        for target in self.tmpfs:
            lines += [f"mkdir -p .{target}", f"mount -t tmpfs -o mode=1777 none .{target}"]
        program = {Path(sys.prefix), Path(sys.base_prefix), ROOT, Path(sys.prefix).resolve()} - {Path("/usr")}
        for each in (Path("/usr"), Path("/etc"), *(each for each in program if not each.is_relative_to("/usr"))):
            lines += _bound(each, str(each), writable=False)
        lines += [
            f"mount --bind {hosts} ./etc/hosts",
            "mkdir proc dev",
            "mount -t proc proc proc",
            "mount --rbind /dev dev",
        ]
        for source, target, writable in self.mounts:
            lines += _bound(source, target, writable=writable)
        lines.append("mount -o remount,ro .")
        variables = {"PATH": ":".join((str(Path(sys.prefix, "bin")), *_PROGRAMS)), "PYTHONPATH": str(ROOT)}
        alone = ("setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "--no-new-privs")
        none = ("--bounding-set=-all", "--inh-caps=-all", "env", "-i", f"--chdir={self.folder}")
        values = [f"{key}={value}" for key, value in {**variables, **self.environment}.items()]
        lines.append("exec " + shlex.join(["chroot", ".", *alone, *none, *values, *self.command]))
        return "\n".join(lines)


def _bound(source: Path, target: str, *, writable: bool) -> list[str]:
    where = shlex.quote(f".{target}")
    make = f"mkdir -p {where}" if source.is_dir() else f"mkdir -p $(dirname {where}) && touch {where}"
    lines = [make, f"mount --bind {shlex.quote(str(source))} {where}"]
    return lines if writable else [*lines, f"mount -o remount,bind,ro {where}"]


@dataclass
class Host:
    """A machine with a network of its own; `folder` is where it keeps things."""

    folder: Path
    keeper: int

    def start(self, container: Container, log: Path) -> "subprocess.Popen[bytes]":
        """Its output is appended to `log`."""
        root = self.folder / f"root-{time.monotonic_ns()}"
        root.mkdir()
        script = container.script(root, self.folder / "hosts")
        spaces = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", script)
        with log.open("ab") as out:
            return subprocess.Popen([*self.inside, *spaces], stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @property
    def inside(self) -> tuple[str, ...]:
        """Before a command: on its network."""
        return ("nsenter", f"--net=/proc/{self.keeper}/ns/net")


@contextmanager
def host(folder: Path, names: Sequence[str] = ()) -> Iterator[Host]:
    """`names` are found at 127.0.0.1 there, as Compose finds its services by their names."""
    (folder / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))
    command = ("unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == b"up\n"
            yield Host(folder, keeper.pid)
        finally:
            keeper.kill()


def child_of(process: "subprocess.Popen[bytes]") -> int:
    """PID 1 of a container, as the host counts."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until_s = time.monotonic() + 10
    while not (found := children.read_text().split()):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return int(found[0])


def possible() -> str:
    """Empty, or why there are no containers here."""
    if os.geteuid() != 0:
        return "only root makes them"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "ip") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is missing"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], check=False, capture_output=True)
    return tried.stderr.decode()


# What a Containerfile and a Compose file say.


def image(text: str) -> dict[str, Any]:
    """The last of each instruction, JSON lists as lists; `COPY` and `RUN` all of them."""
    found: dict[str, Any] = {"COPY": [], "RUN": []}
    for line in re.sub(r"(?m)^#.*\n", "", text).splitlines():
        name, _, rest = line.partition(" ")
        if name in {"COPY", "RUN"}:
            found[name].append(rest)
        elif name:
            found[name] = json.loads(rest) if rest.startswith("[") else rest
    return found


def composed(folder: Path) -> dict[str, Any]:
    """The services of FOLDER/compose.yaml, with .env filled in."""
    values = dict(line.split("=") for line in (folder / ".env").read_text().split())
    text = re.sub(
        r"\$\{(\w+):-(\w+)\}", lambda each: values.get(each[1], each[2]), (folder / "compose.yaml").read_text()
    )
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def container(folder: Path, service: str, arguments: Sequence[str] = ()) -> Container:
    """That of a service; `arguments` take the place of its command."""
    asked = composed(folder)[service]
    assert asked["user"] == f"{ACCOUNT}:{ACCOUNT}"
    assert (asked["read_only"], asked["cap_drop"], asked["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    ours = image((folder / "Containerfile").read_text()) if asked["image"] == "edgeclient" else {}
    mounts = [tuple(each.split(":")) for each in asked["volumes"]]
    return Container(
        [*ours.get("ENTRYPOINT", []), *(arguments or asked["command"])],
        [(folder / each[0], each[1], each[2:] != ("ro",)) for each in mounts],
        dict(each.split("=") for each in ours.get("ENV", "").split()),
        ours.get("WORKDIR", "/"),
        asked["tmpfs"],
    )


def main(arguments: Sequence[str]) -> int:
    """`docker`, as far as firmware_configs/README.md uses it; EDGECLIENT_HOST says where."""
    match arguments:
        case ["build", "-t", "edgeclient", "-f", file, context]:
            for each in image(Path(file).read_text())["COPY"]:
                *sources, target = each.split()
                assert target.startswith("/build/")
                assert all(Path(context, source).exists() for source in sources), each
        case ["compose", "run", "--rm", service, *command]:
            given = json.loads(os.environ["EDGECLIENT_HOST"])
            own(Path())
            log = Path(given["folder"]) / "run.log"
            started = Host(Path(given["folder"]), given["keeper"]).start(container(Path.cwd(), service, command), log)
            if started.wait(120):
                sys.stderr.write(log.read_text())
                return 1
        case ["compose", "up", "-d"]:
            own(Path())
        case _:
            sys.stderr.write(f"docker {shlex.join(arguments)}: not tried here\n")
            return 1
    return 0


def own(folder: Path) -> None:
    """Give all of it to the account, as if that had made it."""
    for each in (folder, *folder.rglob("*")):
        os.chown(each, ACCOUNT, ACCOUNT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
