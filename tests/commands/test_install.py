"""Services: what is written, what is left alone, and whether systemd and sh take it."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from installed import NEEDS_ANALYZE, SERVICES, Home, analyze, write

from edgeclient.commands.install import termux
from edgeclient.commands.once import once_command
from edgeclient.durable.lock import in_use
from edgeclient.services import processes, systemd
from edgeclient.services.installation import Installation, Job, SealedFile
from edgeclient.settings import ConfigError

UNITS = sorted(SERVICES.glob("systemd-*/*@.*"))


def job(folder: Path, *, once: bool = False, executable_memory: bool = False) -> Job:
    program = folder / "bin" / "edgeclient"
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o700)
    config = write(folder / "my device.toml")
    verb, state, data = "once" if once else "run", folder / "state", (folder / "windows.npz",)
    return Job(program, verb, config, "har", state, data, executable_memory=executable_memory)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


UNIT = ".config/systemd/user/edgeclient@.service"
DROP_IN = ".config/systemd/user/edgeclient@har.service.d/edgeclient.conf"


def test_install_and_uninstall(home: Home) -> None:
    said = home.ok("install", "--systemd", "--user")
    assert home.files() == {UNIT, DROP_IN}
    assert home.called() == [
        "systemctl --user daemon-reload",
        "systemctl --user enable edgeclient@har.service",
        "systemctl --user restart edgeclient@har.service",
    ]
    assert "note: it runs while you are logged in" in said
    program = Path(sys.executable).with_name("edgeclient")
    assert f'ExecStart="{program}" run "{home.config}"\n' in (home.folder / DROP_IN).read_text()
    shipped = (SERVICES / "systemd-user" / "edgeclient@.service").read_text()
    assert (home.folder / UNIT).read_text().startswith(shipped)
    assert f"{home.folder / UNIT} is there already" in home.ok("install", "--systemd", "--user", "device.toml")
    home.called()
    home.ok("uninstall")
    assert home.files() == set()
    assert not (home.folder / DROP_IN).parent.exists()
    assert home.called() == [
        "systemctl --user disable --now edgeclient@har.service",
        "systemctl --user reset-failed edgeclient@har.*",
        "systemctl --user daemon-reload",
    ]
    assert "is not installed as a service" in home.refused("uninstall")


def test_a_dry_run_does_nothing(home: Home) -> None:
    said = home.ok("install", "--systemd", "--user", "--dry-run")
    assert f"would write {home.folder / UNIT}" in said
    assert "    NoNewPrivileges=yes\n" in said
    assert "would run systemctl --user enable edgeclient@har.service" in said
    assert (home.files(), home.called()) == (set(), [])
    home.ok("install", "--systemd", "--user")
    before = home.files()
    home.called()
    assert f"would remove {home.folder / UNIT}" in home.ok("uninstall", "--dry-run")
    assert (home.files(), home.called()) == (before, [])


def test_a_file_says_whose_it_is(tmp_path: Path) -> None:
    file = SealedFile(tmp_path / "unit", "[Service]\n")
    assert file.state() == "absent"
    file.write()
    assert file.state() == "same"
    assert SealedFile(file.path, "[Unit]\n").state() == "older"
    file.path.write_bytes(file.path.read_bytes().replace(b"Service", b"Mine"))
    assert file.state() == "changed"


@pytest.mark.parametrize("name", [UNIT, DROP_IN])
def test_what_somebody_has_changed_is_left_alone(home: Home, name: str) -> None:
    home.ok("install", "--systemd", "--user")
    path = home.folder / name
    path.write_text(path.read_text().replace("[Service]", "[Service]\nCPUQuota=20%", 1))
    changed = path.read_text()
    home.called()
    assert f"{path} has been changed, and is left alone" in home.refused("install", "--systemd", "--user")
    assert home.called() == []
    assert f"leaves {path}, which has been changed" in home.ok("uninstall")
    assert home.files() == {name}
    assert path.read_text() == changed


def test_another_version_of_ours_is_replaced(home: Home) -> None:
    home.ok("install", "--systemd", "--user")
    SealedFile(home.folder / UNIT, "# of an older version\n").write()
    assert f"writes {home.folder / UNIT}" in home.ok("install", "--systemd", "--user")
    assert "[Service]" in (home.folder / UNIT).read_text()


def test_two_tasks_share_the_unit(home: Home) -> None:
    write(home.folder / "other.toml", "other")
    home.ok("install", "--systemd", "--user")
    home.ok("install", "--systemd", "--user", "other.toml")
    home.ok("uninstall", "device.toml")
    assert home.files() == {UNIT, DROP_IN.replace("har", "other")}
    home.ok("uninstall", "other.toml")
    assert home.files() == set()


def test_another_file_of_the_same_task_does_not_take_the_service_over(home: Home) -> None:
    home.ok("install", "--systemd", "--user")
    write(home.folder / "other.toml")
    before = (home.folder / DROP_IN).read_text()
    said = home.refused("install", "--systemd", "--user", "other.toml")
    assert "edgeclient@har.service of your systemd runs another file" in said
    assert "edgeclient uninstall other.toml first" in said
    assert (home.folder / DROP_IN).read_text() == before
    home.ok("uninstall", "other.toml")
    home.ok("install", "--systemd", "--user", "other.toml")


@pytest.mark.case("fleet 24")
def test_the_timer_s_unit_waits_longer_than_once_itself() -> None:
    (own,) = (each.default for each in once_command.params if each.name == "timeout_s")
    for kind in ("system", "user"):
        unit = (SERVICES / f"systemd-{kind}" / "edgeclient-once@.service").read_text()
        minutes, goodbye = (
            int(re.findall(rf"(?m)^{name}=(\d+)", unit)[0]) for name in ("TimeoutStartSec", "TimeoutStopSec")
        )
        assert isinstance(own, float)
        assert minutes * 60 > own + goodbye
        assert "\nSuccessExitStatus=3\n" in unit


def test_a_timer_instead_of_a_process(home: Home) -> None:
    home.ok("install", "--systemd", "--user", "--once")
    assert "systemctl --user restart edgeclient-once@har.timer" in home.called()
    assert " once " in next((home.folder / ".config/systemd/user/edgeclient-once@har.service.d").iterdir()).read_text()
    said = home.refused("install", "--systemd", "--user")
    assert (
        "device.toml is installed as edgeclient-once@har.timer of your systemd: edgeclient uninstall device.toml first"
        in said
    )
    home.ok("uninstall")
    assert home.files() == set()


def test_logs(home: Home) -> None:
    assert "is not installed as a service" in home.refused("logs")
    home.ok("install", "--systemd", "--user")
    home.called()
    home.ok("logs", "-n", "5", "--follow")
    assert home.called() == ["journalctl -n 5 -f --user-unit=edgeclient@har.service"]


def test_termux(home: Home) -> None:
    home.ok("install", "--termux")
    assert home.files() == {".termux/boot/edgeclient-har"}
    assert (home.folder / ".termux/boot/edgeclient-har").stat().st_mode & 0o777 == 0o700
    home.ok("logs")
    assert home.called() == [f"tail -n 100 {home.folder / 'state' / 'edgeclient.log'}"]
    home.ok("logs", "--follow")
    assert home.called() == [f"tail -n 100 -F {home.folder / 'state' / 'edgeclient.log'}"]
    home.ok("uninstall")
    assert (home.files(), home.called()) == (set(), [])


def test_termux_job(home: Home) -> None:
    home.ok("install", "--termux", "--once")
    script = home.folder / ".termux/edgeclient/edgeclient-har"
    (begun,) = home.called()
    number = begun.split()[2]
    assert begun == (
        f"termux-job-scheduler --job-id {number} --script {script} --period-ms 21600000 --network unmetered"
        " --charging true --persisted true"
    )
    assert 0 < int(number) < 1 << 31
    home.ok("uninstall")
    assert home.called() == [f"termux-job-scheduler --job-id {number} --cancel"]
    assert home.files() == set()


def test_every_mistake_is_one_line(home: Home) -> None:
    assert "give either --systemd or --termux" in home.call("install").stderr
    assert "gone.toml: No such file" in home.refused("install", "--systemd", "--user", "gone.toml")
    assert "systemctl is missing: it belongs to systemd" in home.refused("install", "--systemd", "--user", path="/none")
    missing = home.refused("install", "--termux", "--once", path="/none")
    assert "is installed as edgeclient@har.service of your systemd" in missing
    # Without systemd the files still go.
    assert "note: systemctl is missing" in home.call("uninstall", path="/none").stdout
    assert home.files() == set()
    assert "termux-job-scheduler is missing: it belongs to the package termux-api" in home.refused(
        "install", "--termux", "--once", path="/none"
    )
    home.ok("uninstall")
    home.program("systemctl", "echo Failed to connect to bus: No medium found >&2; exit 1\n")
    said = home.refused("install", "--systemd", "--user")
    assert "systemctl --user daemon-reload failed: Failed to connect to bus: No medium found" in said


def test_a_system_service_reaches_no_home(home: Home, tmp_path: Path) -> None:
    assert "is hidden from a system service" in home.refused("install", "--systemd", "--system", "--dry-run")
    here = job(tmp_path)
    there = replace(here, program=Path("/opt/edgeclient/bin/edgeclient"), config=Path("/etc/edgeclient/har.toml"))
    pyenv = replace(there, interpreter=Path("/root/.pyenv/versions/3.11.7/bin/python3.11"))
    with pytest.raises(ConfigError, match=r"python3.11 \(its Python\) is hidden"):
        systemd.service(pyenv, of_machine=True)
    there = replace(there, interpreter=Path("/usr/bin/python3.11"))
    with pytest.raises(ConfigError, match=r"/home/pi/har.toml \(configuration\) is hidden"):
        systemd.service(replace(there, config=Path("/home/pi/har.toml")), of_machine=True)
    with pytest.raises(ConfigError, match=r"\(data\) is hidden"):
        systemd.service(there, of_machine=True)
    there = replace(there, data=(Path("my_package"),))
    with pytest.raises(ConfigError, match=r'set directory = "/var/lib/edgeclient/har"'):
        systemd.service(there, of_machine=True)
    assert systemd.service(replace(there, directory=Path("/var/lib/edgeclient/har")), of_machine=True) is not None


@pytest.mark.parametrize("name", ["a$b.toml", "a%b.toml", 'a"b.toml', "a\nb.toml"])
def test_a_path_that_systemd_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot stand in a systemd unit"):
        systemd.service(replace(job(tmp_path), config=tmp_path / name), of_machine=False)


def test_numba_decides_about_executable_memory(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute would stop it: PermissionError, cannot allocate executable memory."""
    without = systemd.drop_in(job(tmp_path))
    assert "MemoryDenyWriteExecute=yes" in without
    with_ = systemd.drop_in(job(tmp_path, executable_memory=True))
    assert "MemoryDenyWriteExecute" not in with_
    assert "warmup" in with_
    for path in UNITS:
        assert not [line for line in path.read_text().splitlines() if line.startswith("MemoryDenyWriteExecute")]


def test_secrets_are_left_to_people(tmp_path: Path) -> None:
    secret = Path("/etc/edgeclient/mqtt.password")
    assert systemd.system(replace(job(tmp_path), secrets=(secret,)), tmp_path / "etc").notes == (
        "let the service read /etc/edgeclient/mqtt.password: chown edgeclient /etc/edgeclient/mqtt.password",
    )


@pytest.mark.case("fleet 28")
@pytest.mark.parametrize(
    "command", [["install", "--systemd", "--dry-run"], ["uninstall"], ["logs"], ["install", "--termux"]]
)
def test_an_account_without_a_home_is_told_so(home: Home, command: list[str]) -> None:
    home.folder.chmod(0o755)
    for above in home.folder.parents[:2]:
        above.chmod(0o755)
    account = ("unshare", "--user", "--map-user=4242", "--map-group=4242", "env", "-u", "HOME", "-u", "XDG_CONFIG_HOME")
    full = [*account, sys.executable, "-m", "edgeclient.cli", *command, "device.toml"]
    done = subprocess.run(full, capture_output=True, text=True, check=False, cwd=home.folder, timeout=60)
    if "unshare failed" in done.stderr:
        pytest.skip("this machine makes no user namespaces")
    has_none = "this account (number 4242) has no home, where its services would be: set HOME, or let root install"
    told = has_none if command[0] == "install" else "device.toml is not installed as a service: "
    assert (done.returncode, done.stderr.count("\n"), told in done.stderr) == (1, 1, True), done.stderr


# systemd's own judgement.


def placed(made: Job, folder: Path, *, user: bool) -> Path:
    """The folder of units, installed."""
    service = systemd.user(made, folder) if user else systemd.system(made, folder)
    for file in service.shared + service.files:
        file.write()
    return folder / "systemd" / ("user" if user else "system")


@NEEDS_ANALYZE
@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
@pytest.mark.parametrize("once", [False, True], ids=["run", "once"])
@pytest.mark.parametrize("numba", [False, True], ids=["numpy", "numba"])
def test_systemd_understands_what_is_installed(
    tmp_path_factory: pytest.TempPathFactory, *, user: bool, once: bool, numba: bool
) -> None:
    folder = tmp_path_factory.mktemp("u")  # a short name: sockets of the system's own units lie below it
    made = job(folder, once=once, executable_memory=numba)
    units = placed(made, folder / "etc", user=user)
    name = "edgeclient-once@har" if once else "edgeclient@har"
    for unit in [f"{name}.service", *([f"{name}.timer"] if once else [])]:
        said = analyze("verify", "--man=no", unit, units=units, user=user)
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    if once:
        return
    drop_in = units / f"{name}.service.d" / "edgeclient.conf"
    drop_in.write_text(drop_in.read_text() + "NoNewPrivilege=yes\nWorkingDirectory=relative\n")
    said = analyze("verify", "--man=no", f"{name}.service", units=units, user=user)
    assert "'NoNewPrivilege' in section" in said.stderr


@pytest.mark.case("fleet 27")
@NEEDS_ANALYZE
def test_blanks_and_umlauts_may_stand_in_every_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("u") / "Büro oben"
    folder.mkdir()
    made = replace(job(folder), config=write(folder / "mein Gerät" / "gerät 1.toml"))
    units = placed(made, folder / "etc", user=False)
    said = analyze("verify", "--man=no", "edgeclient@har.service", units=units)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert f'ExecStart="{folder}/bin/edgeclient" run "{folder}/mein Gerät/gerät 1.toml"' in systemd.drop_in(made)


@NEEDS_ANALYZE
@pytest.mark.parametrize("name", ["edgeclient@.service", "edgeclient-once@.service", "edgebroker@.service"])
def test_the_sandbox_is_tight(tmp_path: Path, name: str) -> None:
    """Exposure at most 2.0 of 10, as systemd counts; the rest is named in the unit."""
    unit = tmp_path / name
    text = (SERVICES / "systemd-system" / name).read_text()
    for content, tight in ((text, True), (text.replace("SystemCallFilter=", "#"), False)):
        unit.write_text(content)
        said = analyze("security", "--offline=true", "--threshold=20", "--no-pager", unit, units=tmp_path)
        assert (said.returncode == 0) is tight, said.stdout


def test_both_units_have_one_sandbox() -> None:
    for kind in ("system", "user"):
        stays, once = (
            set(
                (SERVICES / f"systemd-{kind}" / f"{name}@.service")
                .read_text()
                .split("# In nobody's way")[1]
                .splitlines()
            )
            for name in ("edgeclient", "edgeclient-once")
        )
        differs = {line for line in stays ^ once if line and not line.startswith(("#", "[Install]", "WantedBy="))}
        assert differs == set()


# The phone's scripts.


def run_script(service: Installation, folder: Path) -> subprocess.CompletedProcess[str]:
    (file,) = service.files
    file.write()
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("termux-wake-lock", "termux-wake-unlock"):
        (tools / name).write_text(f"#!/bin/sh\necho {name} >>{folder}/calls\n")
        (tools / name).chmod(0o700)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    # Its interpreter is Termux's.
    return subprocess.run(["sh", file.path], capture_output=True, text=True, check=False, env=env, timeout=60)


@pytest.mark.parametrize("once", [False, True])
def test_the_scripts_of_a_phone(tmp_path: Path, *, once: bool) -> None:
    made = job(tmp_path, once=once)
    log = tmp_path / "state" / "edgeclient.log"
    service = termux.service(made, tmp_path / "home")
    ran = run_script(service, tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert log.read_text() == f"{'once' if once else 'run'} {made.config} --log-file {log}\n"
    assert (tmp_path / "calls").read_text().split() == ["termux-wake-lock", "termux-wake-unlock"]


def test_a_job_that_fails_releases_the_phone(tmp_path: Path) -> None:
    made = job(tmp_path, once=True)
    made.program.write_text("#!/bin/sh\nexit 3\n")
    assert run_script(termux.service(made, tmp_path), tmp_path).returncode == 3
    assert (tmp_path / "calls").read_text().split() == ["termux-wake-lock", "termux-wake-unlock"]


@pytest.mark.case("fleet 52")
@pytest.mark.parametrize("once", [False, True], ids=["boot", "job"])
def test_uninstall_ends_what_the_phone_has_started(home: Home, *, once: bool) -> None:
    home.ok("install", "--termux", *(("--once",) if once else ()))
    (name,) = home.files()
    for tool in ("termux-wake-lock", "termux-wake-unlock"):
        home.program(tool, f"echo {tool} >>{home.calls}\n")
    env = {**os.environ, "HOME": str(home.folder), "PATH": f"{home.bin}:{os.environ['PATH']}"}
    home.config.write_text(home.config.read_text() + "[mqtt]\nport = 1\n")  # where nobody answers
    np.savez(home.folder / "windows.npz", x=np.zeros((4, 2), np.float32), labels=np.zeros(4, np.int64))
    elsewhere = subprocess.Popen(["sleep", "60"])
    with subprocess.Popen(["sh", home.folder / name], env=env) as shell:
        try:
            log = home.folder / "state" / "edgeclient.log"
            until_s = time.monotonic() + 60
            while "learns har" not in (log.read_text() if log.exists() else ""):
                assert (shell.poll(), time.monotonic() < until_s) == (None, True)
                time.sleep(0.05)
            home.called()
            said = home.ok("uninstall")
            assert f"ends process {shell.pid}: sh {home.folder / name}\n" in said
            assert re.search(r"ends process \d+: \S*python\S* \S*/edgeclient (run|once) ", said)
            assert shell.wait(10) in {143, -signal.SIGTERM}
            assert (home.files(), "termux-wake-unlock" in home.called()) == (set(), True)
            assert elsewhere.poll() is None
            assert in_use(home.folder / "state" / "lock") is False
        finally:
            elsewhere.kill()
            elsewhere.wait()
            processes.end([(str(home.folder / name),)])


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeclient.services.processes._GOODBYE_S", 0.3)
    stubborn = (sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    with subprocess.Popen(stubborn) as process:
        processes.end([stubborn[1:]])  # a zombie has no arguments any more
        assert process.wait(10) in {-signal.SIGKILL, -signal.SIGTERM}


@pytest.mark.parametrize("name", ["boot", "job"])
def test_sh_understands_the_shipped_scripts(name: str) -> None:
    subprocess.run(["sh", "-n", SERVICES / "termux" / name], check=True, timeout=60)
