"""The embedded servers: they keep data, refuse strangers, and never outlive or harm others."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from portal.core.supervisor.faults import Fault
from portal.core.supervisor.layout import Layout
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.valkey import EmbeddedValkey
from tests.supervisor.conftest import CopyCluster
from tests.supervisor.disks import CAN_MOUNT, small_disk

_START_BOTH = """
import sys, time
from pathlib import Path
from portal.core.supervisor.postgres import EmbeddedPostgres
from portal.core.supervisor.valkey import EmbeddedValkey
postgres, valkey = EmbeddedPostgres(Path(sys.argv[1])), EmbeddedValkey(Path(sys.argv[1]))
postgres.start(); valkey.start()
print(postgres.process.pid, valkey.process.pid, flush=True)
sys.stdin.read()
"""


def wait_for_end(pid_descriptor: int, seconds: float = 20.0) -> bool:
    """Whether the process behind a pidfd ends in time."""
    ended, _, _ = select.select([pid_descriptor], [], [], seconds)
    os.close(pid_descriptor)
    return bool(ended)


@pytest.fixture
def postgres(tmp_path: Path, copy_cluster: CopyCluster) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(copy_cluster(tmp_path / "my data"))
    yield server
    server.stop()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path / "my data")
    yield server
    server.stop()


def test_start_postgres_again_keeps_what_was_committed(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    with psycopg.connect(postgres.admin_url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        settings: dict[str, str] = dict(
            connection.execute(
                "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'listen_addresses',"
                " 'synchronous_commit', 'jit', 'TimeZone', 'server_encoding')"
            ).fetchall()
        )
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "jit": "off",
        "listen_addresses": "",
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
    }
    postgres.stop()
    postgres.start()
    with psycopg.connect(postgres.admin_url()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_start_in_an_empty_folder_makes_a_cluster(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "new")
    try:
        server.start()
        assert server.is_new
        with psycopg.connect(server.admin_url()) as connection:
            assert connection.info.dbname == "freehold"
    finally:
        server.stop()


def test_log_in_without_the_password_is_refused(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url("postgres", "guessed"))


def test_start_valkey_again_begins_empty(valkey: EmbeddedValkey) -> None:
    valkey.start()
    with redis.Redis.from_url(valkey.url()) as client:
        client.set("carried", "yes")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("port") == {"port": "0"}
    valkey.stop()
    valkey.start()
    with redis.Redis.from_url(valkey.url()) as client:
        assert client.get("carried") is None


def test_start_in_a_deep_folder_uses_a_short_socket_path(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    server = EmbeddedValkey(deep)
    try:
        server.start()
        assert not server.socket.is_relative_to(deep)
        assert server.is_ready()
    finally:
        server.stop()
        server.layout.sockets.rmdir()


def test_start_after_kill_recovers(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    assert postgres.process is not None
    postgres.process.kill()
    postgres.process.wait()
    postgres.start()
    assert postgres.is_ready()


def test_start_with_a_recycled_pid_in_the_pid_file_spares_the_other_process(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    postgres.stop()
    with subprocess.Popen(["sleep", "60"]) as other:
        pid_file = postgres.folder / "postmaster.pid"
        pid_file.write_text(f"{other.pid}\n{postgres.folder}\n0\n5432\n\n\n0 0\nready\n")
        postgres.start()
        assert other.poll() is None
        other.kill()


def test_start_ends_servers_that_outlived_their_supervisor(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    data_dir = copy_cluster(tmp_path / "data")
    old_postgres = EmbeddedPostgres(data_dir, dies_with_starter=False)
    old_valkey = EmbeddedValkey(data_dir, dies_with_starter=False)
    old_postgres.start()
    old_valkey.start()
    new_postgres, new_valkey = EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)
    try:
        new_postgres.start()
        new_valkey.start()
        for old, new in ((old_postgres, new_postgres), (old_valkey, new_valkey)):
            assert old.process is not None
            assert old.process.wait(5) == 0
            assert new.process is not None
            assert new.process.poll() is None
    finally:
        new_valkey.stop()
        new_postgres.stop()


def test_clean_up_spares_servers_of_other_folders(tmp_path: Path) -> None:
    theirs = EmbeddedValkey(tmp_path / "theirs")
    theirs.start()
    try:
        EmbeddedValkey(tmp_path / "the").clean_up()
        EmbeddedPostgres(tmp_path / "theirs").clean_up()
        assert theirs.is_ready()
    finally:
        theirs.stop()


def test_servers_end_when_their_starter_is_killed(
    tmp_path: Path, copy_cluster: CopyCluster
) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _START_BOTH, str(copy_cluster(tmp_path / "data"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    assert starter.stdin is not None
    pids = [int(word) for word in starter.stdout.readline().split()]
    descriptors = [os.pidfd_open(pid) for pid in pids]
    starter.kill()
    starter.wait()
    starter.stdout.close()
    starter.stdin.close()
    assert [wait_for_end(descriptor) for descriptor in descriptors] == [True, True]


def test_start_when_a_server_answers_on_a_stale_pid_file_waits_for_its_own(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    postgres.stop()
    (postgres.folder / "postmaster.pid").write_text("999999999\n\n0\n5432\n\n\n0 0\nready\n")
    assert not postgres.is_ready()
    postgres.start()
    assert postgres.is_ready()


def _no_version(folder: Path) -> None:
    (folder / "PG_VERSION").unlink()


def _garbled_version(folder: Path) -> None:
    (folder / "PG_VERSION").write_bytes(b"\xff\x00\xfe")


def _older_version(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("15\n")


def _cut_control_file(folder: Path) -> None:
    (folder / "global" / "pg_control").write_bytes(b"\0" * 100)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_version, "no PG_VERSION"),
        (_garbled_version, "PG_VERSION is unreadable"),
        (_older_version, "was made by PostgreSQL 15"),
        (_cut_control_file, "pg_control is missing or cut"),
    ],
)
def test_start_on_a_damaged_folder_says_so_and_deletes_nothing(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    server = EmbeddedPostgres(tmp_path)
    (server.folder / "global").mkdir(parents=True)
    (server.folder / "PG_VERSION").write_text("18\n")
    (server.folder / "global" / "pg_control").write_bytes(b"\0" * 8192)
    damage(server.folder)
    before = sorted(server.folder.rglob("*"))
    with pytest.raises(Fault, match=words) as caught:
        server.start()
    message = str(caught.value)
    assert "\n" not in message
    assert str(server.folder) in message
    assert "--data-dir" in message
    assert sorted(server.folder.rglob("*")) == before


def test_start_on_a_folder_that_only_postgres_finds_damaged_passes_on_its_verdict(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.prepare()
    (postgres.folder / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(Fault, match="database files are incompatible with server"):
        postgres.start()


def test_start_with_a_damaged_broker_file_says_how_to_move_on(valkey: EmbeddedValkey) -> None:
    valkey.start()
    valkey.stop()
    (valkey.folder / "dump.rdb").write_bytes(b"REDIS0011 garbage")
    with pytest.raises(Fault, match="move that folder away"):
        valkey.start()


def test_broker_writes_nothing_of_what_it_carries_to_disk(valkey: EmbeddedValkey) -> None:
    valkey.start()
    with redis.Redis.from_url(valkey.url()) as client:
        client.xadd("returns:gateway", {"e": "an answer in clear"})
    valkey.stop()
    assert all(
        b"an answer in clear" not in file.read_bytes()
        for file in valkey.layout.data_dir.rglob("*")
        if file.is_file()
    )


def test_prepare_over_a_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("not a folder")
    with pytest.raises(Fault, match="var: .*--data-dir"):
        Layout.of(tmp_path / "var").prepare()


def test_prepare_refuses_a_socket_folder_that_is_a_link(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path / ("d" * 60) / ("e" * 60))
    layout.sockets.symlink_to(tmp_path)
    try:
        with pytest.raises(Fault, match="belongs to someone else|File exists"):
            layout.prepare()
    finally:
        layout.sockets.unlink()


def sockets_of(pid: int) -> set[str]:
    """The inodes of a process's sockets, whatever else it opens and closes meanwhile."""
    names = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(str(file.readlink()))
    return {name[8:-1] for name in names if name.startswith("socket:[")}


def test_start_listens_on_no_network_address(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(postgres.socket_folder / ".s.PGSQL.5432"))
    assert oct(postgres.socket_folder.stat().st_mode & 0o777) == "0o700"
    assert postgres.process is not None
    inodes = sockets_of(postgres.process.pid)
    tcp = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    assert inodes
    assert inodes.isdisjoint(line.split()[9] for line in tcp.splitlines() if "inode" not in line)


if CAN_MOUNT:

    def test_start_on_a_full_disk_says_so_and_leaves_nothing_half_made(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with small_disk(tmp_path / "disk", megabytes=24) as disk:
            server = EmbeddedPostgres(disk / "var")
            with pytest.raises(Fault, match=r"has \d+ MB free and 300 MB are needed"):
                server.start()
            monkeypatch.setattr(Layout, "require_free_space", lambda layout, megabytes: None)
            with pytest.raises(Fault, match="disk .* is full: free some space"):
                server.start()
            assert not server.folder.exists()
            assert not list((disk / "var").glob("postgres*"))

    def test_start_valkey_on_a_full_disk_says_so(tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", megabytes=1) as disk:
            server = EmbeddedValkey(disk)
            server.layout.prepare()
            with (disk / "ballast").open("wb", buffering=0) as ballast:
                with pytest.raises(OSError, match="No space left"):
                    while True:
                        ballast.write(b"\0" * 4096)
            with pytest.raises(Fault, match="disk .* is full: free some space"):
                server.start()
            server.stop()


def test_end_by_signal_leaves_postgres_clean(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    assert postgres.process is not None
    postgres.process.send_signal(signal.SIGINT)
    assert postgres.process.wait(20) == 0
    assert "database system is shut down" in postgres.log.read_text()
