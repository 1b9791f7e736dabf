"""The shell commands: what a fresh machine lacks is named in one line."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from portal.core.supervisor.__main__ import main
from tests.supervisor import product
from tests.supervisor.disks import CAN_MOUNT, small_disk

REPOSITORY = Path(__file__).resolve().parents[2]
_PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.14", "python3")


def bare_checkout(folder: Path) -> Path:
    """A checkout with the commands and the supervisor, and no .venv."""
    shutil.copytree(REPOSITORY / "bin", folder / "bin")
    supervisor = folder / "portal" / "core"
    shutil.copytree(REPOSITORY / "portal" / "core" / "supervisor", supervisor / "supervisor")
    (folder / "portal" / "__init__.py").touch()
    (supervisor / "__init__.py").touch()
    for name in ("requirements-embedded.txt", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def fake_pythons(folder: Path, script: str) -> dict[str, str]:
    """An environment in which every Python is this shell script."""
    folder.mkdir()
    for name in _PYTHONS:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}


def run(
    command: Path, *words: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its two outputs as one."""
    return subprocess.run(
        [str(command), *words],
        check=False,
        cwd=cwd,
        env=product.clean_env(**(env or {})),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )


@pytest.mark.parametrize("command", ["start", "test"])
def test_run_without_ensurepip_names_the_package(tmp_path: Path, command: str) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    env = fake_pythons(
        tmp_path / "path",
        'case "$*" in *"import ensurepip"*) exit 1 ;; *print*) echo python3.12 ;; esac',
    )
    done = run(checkout / "bin" / command, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "apt install python3.12-venv" in done.stdout


def test_start_with_an_old_python_only_names_what_is_needed(tmp_path: Path) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    done = run(
        checkout / "bin" / "start", cwd=tmp_path, env=fake_pythons(tmp_path / "path", "exit 1")
    )
    assert done.returncode == 1
    assert done.stdout.startswith("freehold: Python 3.11 or newer is needed: run `")
    assert done.stdout.count("\n") == 1


def test_start_on_a_taken_port_says_so_before_installing(tmp_path: Path) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(checkout / "bin" / "start", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken" in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "99999999999"])
def test_start_with_a_port_that_is_none_is_refused(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["start", f"--port={port}"])
    assert caught.value.code == 2
    assert "is not a port" in capsys.readouterr().err


def test_failing_download_names_network_and_mirror(tmp_path: Path) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    make = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages"]
    subprocess.run([*make, str(checkout / ".venv")], check=True)
    offline = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_INDEX_URL": f"http://127.0.0.1:{product.free_port()}/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    port = str(product.free_port())
    start = checkout / "bin" / "start"
    done = run(start, "--port", port, cwd=tmp_path, env=offline)
    assert done.returncode == 1
    assert "A package can't be downloaded: check the network" in done.stdout.splitlines()[-1]


def test_stop_where_nothing_runs_says_so(tmp_path: Path) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    done = run(checkout / "bin" / "stop", "--data-dir", "some where", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"Freehold is not running on {tmp_path / 'some where'}.\n"
    assert not (tmp_path / "some where").exists()


def test_campaign_that_is_unknown_lists_the_known(tmp_path: Path) -> None:
    checkout = bare_checkout(tmp_path / "check out")
    campaigns = checkout / "benchmarks" / "campaigns"
    campaigns.mkdir(parents=True)
    for name in ("faults.py", "burst.py", "_common.py"):
        (campaigns / name).touch()
    for wrong in ("nonsense", "_common", "../campaigns/faults", ""):
        done = run(checkout / "bin" / "campaign", wrong, cwd=tmp_path)
        assert done.returncode == 1
        assert "one of: burst faults" in done.stdout


if CAN_MOUNT:

    def test_start_on_a_small_disk_says_how_much_is_needed(tmp_path: Path) -> None:
        checkout = bare_checkout(tmp_path / "check out")
        with small_disk(tmp_path / "disk", megabytes=24) as disk:
            port = str(product.free_port())
            start = checkout / "bin" / "start"
            done = run(start, "--data-dir", str(disk), "--port", port, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout.count("\n") == 1
        assert "MB free and 200 MB are needed" in done.stdout

    def test_install_on_a_disk_that_fills_up_says_so(tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", megabytes=24) as disk:
            checkout = bare_checkout(disk / "check out")
            start = checkout / "bin" / "start"
            words = ["--data-dir", str(tmp_path / "data"), "--port", str(product.free_port())]
            setup = checkout / "bin" / "_setup.sh"
            # Past the estimate: the disk fills up while the virtual environment is made.
            setup.write_text(setup.read_text().replace("free=$(free_mb", "free=9999 #"))
            room = shutil.disk_usage(disk).free - 128 * 1024
            (disk / "ballast").write_bytes(b"\0" * room)
            done = run(start, *words, cwd=tmp_path)
            assert done.returncode == 1
            assert done.stdout.splitlines()[-1].startswith("freehold: The disk that holds")
