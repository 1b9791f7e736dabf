"""A whole installation under its supervisor, with a stand-in for the product."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portal.core.supervisor import secrets
from portal.core.supervisor.faults import Fault
from portal.core.supervisor.installation import stop
from portal.core.supervisor.layout import Layout
from tests.supervisor import product
from tests.supervisor.conftest import CopyCluster
from tests.supervisor.disks import CAN_MOUNT, small_disk

REPOSITORY = Path(__file__).resolve().parents[2]
_PATIENCE_S = 60.0


@dataclass
class Site:
    """An installation to be started."""

    root: Path
    data_dir: Path
    main: Path
    port: int
    running: list[subprocess.Popen[str]]

    def start(self, port: int | None = None) -> subprocess.Popen[str]:
        """Start the supervisor with its output in a pipe."""
        words = [sys.executable, "-P", str(self.main), str(self.data_dir)]
        supervisor = subprocess.Popen(
            [*words, str(port or self.port), str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=product.clean_env(PYTHONPATH=str(REPOSITORY)),
        )
        self.running.append(supervisor)
        return supervisor

    def calls(self) -> list[str]:
        return (self.root / "calls").read_text().split()

    def pid_of(self, name: str) -> int:
        return int((self.data_dir / f"{name}.pid").read_text())


def read_until(supervisor: subprocess.Popen[str], words: str) -> str:
    """Its output up to the line with these words; fails if it ends or takes too long."""
    assert supervisor.stdout is not None
    watchdog = threading.Timer(_PATIENCE_S, supervisor.kill)
    watchdog.start()
    said = ""
    try:
        for line in supervisor.stdout:
            said += line
            if words in line:
                return said
    finally:
        watchdog.cancel()
    pytest.fail(f"{words!r} never came, but:\n{said}")


def ends(pid: int) -> bool:
    """Whether a process ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([descriptor], [], [], _PATIENCE_S)
    os.close(descriptor)
    return bool(ended)


@pytest.fixture
def site(tmp_path: Path, copy_cluster: CopyCluster) -> Iterator[Site]:
    root = tmp_path / "check out"
    main = product.make(root)
    site = Site(root, copy_cluster(tmp_path / "my data"), main, product.free_port(), [])
    yield site
    for supervisor in site.running:
        if supervisor.poll() is None:
            supervisor.kill()
        supervisor.wait()
        assert supervisor.stdout is not None
        supervisor.stdout.close()
    stop(site.data_dir, lambda line: None)


def test_start_twice_reuses_data_and_skips_set_up(site: Site) -> None:
    shutil.rmtree(site.data_dir)
    first = site.start()
    said = read_until(first, "Ctrl-C or bin/stop")
    facts = json.loads((site.data_dir / "start.json").read_text())
    assert facts["url"] == f"http://127.0.0.1:{site.port}"
    assert facts["admin_password"] == "admin-password"
    assert "deployment" not in facts
    assert f"curl -N {facts['url']}/v1/chat/completions" in said
    modes = {oct(path.stat().st_mode & 0o777) for path in (site.data_dir / "secrets").iterdir()}
    assert modes == {"0o600"}
    assert oct((site.data_dir / "start.json").stat().st_mode & 0o777) == "0o600"
    first.send_signal(signal.SIGINT)
    assert first.wait(_PATIENCE_S) == 0
    kept = {path.name: path.read_text() for path in (site.data_dir / "secrets").iterdir()}

    second = site.start()
    read_until(second, "Ctrl-C or bin/stop")
    assert site.calls() == ["roles", "migrate", "collectstatic", "seed_demo"]
    assert json.loads((site.data_dir / "start.json").read_text()) == facts
    assert {p.name: p.read_text() for p in (site.data_dir / "secrets").iterdir()} == kept


def test_start_after_a_change_of_code_sets_up_again_and_keeps_its_facts(site: Site) -> None:
    first = site.start()
    read_until(first, "Ctrl-C or bin/stop")
    facts = (site.data_dir / "start.json").read_text()
    stop(site.data_dir, lambda line: None)
    (site.root / "portal" / "new.py").write_text("")
    read_until(site.start(), "Ctrl-C or bin/stop")
    assert site.calls() == ["roles", "migrate", "collectstatic", "seed_demo"] * 2
    assert (site.data_dir / "start.json").read_text() == facts


def test_stop_waits_until_everything_is_down(site: Site) -> None:
    supervisor = site.start()
    read_until(supervisor, "Ctrl-C or bin/stop")
    pids = [site.pid_of(name) for name in ("inference", "io", "beat")]
    postgres = int((site.data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    lines: list[str] = []
    stop(site.data_dir, lines.append)
    assert lines == ["Freehold is stopped."]
    assert not [pid for pid in [*pids, postgres] if Path(f"/proc/{pid}").exists()]
    assert not (site.data_dir / "run" / "supervisor.pid").exists()


def test_stop_with_a_recycled_pid_in_the_pid_file_spares_the_other_process(site: Site) -> None:
    layout = Layout.of(site.data_dir)
    layout.prepare()
    with subprocess.Popen(["sleep", "60"]) as other:
        layout.pid_file.write_text(json.dumps({"pid": other.pid, "started_at": "1"}))
        lines: list[str] = []
        stop(site.data_dir, lines.append)
        assert other.poll() is None
        assert lines == [f"Freehold is not running on {site.data_dir}."]
        other.kill()


def test_start_twice_at_once_names_the_one_that_runs(site: Site) -> None:
    first = site.start()
    read_until(first, "Ctrl-C or bin/stop")
    second = site.start(product.free_port())
    said = read_until(second, "already runs on")
    assert f"process {first.pid}" in said
    assert second.wait(_PATIENCE_S) == 1
    assert first.poll() is None


def test_start_on_a_taken_port_says_so_before_anything_starts(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.port)):
        supervisor = site.start()
        said, _ = supervisor.communicate(timeout=_PATIENCE_S)
    assert supervisor.returncode == 1
    assert said.count("\n") == 1
    assert f"Port {site.port} on 127.0.0.1 is taken" in said
    assert "--port" in said
    assert not (site.data_dir / "log" / "postgres.log").exists()


def test_kill_of_the_supervisor_ends_its_processes_and_the_next_start_works(site: Site) -> None:
    (site.root / "stubborn-io").touch()
    supervisor = site.start()
    read_until(supervisor, "Ctrl-C or bin/stop")
    pids = [site.pid_of(name) for name in ("inference", "beat")]
    stubborn = site.pid_of("io")
    supervisor.kill()
    assert [ends(pid) for pid in pids] == [True, True]
    (site.root / "stubborn-io").unlink()
    read_until(site.start(), "Ctrl-C or bin/stop")
    assert ends(stubborn)


def test_death_of_a_program_starts_it_again(site: Site) -> None:
    supervisor = site.start()
    read_until(supervisor, "Ctrl-C or bin/stop")
    os.kill(site.pid_of("inference"), signal.SIGKILL)
    read_until(supervisor, "inference stopped (signal 9); started again in 0.5 s.")


def test_start_with_a_program_that_cannot_run_names_it_and_ends(site: Site) -> None:
    web = site.root / "portal" / "web.py"
    web.write_text("raise SystemExit('the settings are upset')")
    supervisor = site.start()
    said = read_until(supervisor, "freehold: ")
    assert "web can't run: the settings are upset" in said
    assert supervisor.wait(_PATIENCE_S) == 1


def test_failing_set_up_names_the_command_and_what_it_said(site: Site) -> None:
    (site.root / "fails-migrate").touch()
    supervisor = site.start()
    said = read_until(supervisor, "freehold: ")
    assert "Making tables failed: `manage.py migrate` said: ProgrammingError: the tables" in said
    assert supervisor.wait(_PATIENCE_S) == 1
    assert not (site.data_dir / "start.json").exists()


if CAN_MOUNT:

    def test_disk_that_fills_up_while_running_is_reported_once(
        site: Site, tmp_path: Path, copy_cluster: CopyCluster
    ) -> None:
        with small_disk(tmp_path / "disk", megabytes=350) as disk:
            site.data_dir = copy_cluster(disk / "data")
            supervisor = site.start()
            read_until(supervisor, "Ctrl-C or bin/stop")
            with (disk / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(disk).free - 1024**2)
            said = read_until(supervisor, "MB left")
            assert f"The disk that holds {site.data_dir} has only" in said
            (disk / "ballast").unlink()
            supervisor.send_signal(signal.SIGTERM)
            rest, _ = supervisor.communicate(timeout=_PATIENCE_S)
            assert "MB left" not in rest


def test_missing_secret_beside_existing_data_is_not_made_anew(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.prepare()
    secrets.ensure(layout)
    layout.postgres.mkdir()
    (layout.secrets / "encryption_keys").unlink()
    with pytest.raises(Fault, match="encryption_keys is missing .* put it back"):
        secrets.ensure(layout)
    assert not (layout.secrets / "encryption_keys").exists()
