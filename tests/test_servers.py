"""The project's servers: started once, found again, on loopback only, stopped with all they started."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from flows import child, servers
from flows.servers import Kind
from tasks.core.errors import UserError
from tests import flow, toy

SMALL = ("-m", "tests.small_server")
"""A real server that is up at once: Python's own, with a child process, as MLflow's has one."""


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as probe:
        probe.bind((servers.HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder whose `mlflow` is the small server; whatever was started is stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(toy.REPOSITORY))
    monkeypatch.setitem(servers.KINDS, "mlflow", Kind(free_port(), "/", SMALL))
    monkeypatch.setattr(servers, "START_SECONDS", 30.0)
    yield tmp_path
    servers.stop_all()


def test_started_once_and_found_again(project: Path) -> None:
    """Ten starts at once give one server, which later calls find."""
    found: list[servers.Server] = []
    threads = [threading.Thread(target=lambda: found.append(servers.start("mlflow"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(set(found)) == 1
    assert servers.find("mlflow") == found[0]
    assert (project / found[0].log).exists()


@pytest.mark.usefixtures("project")
def test_stopped_with_its_children() -> None:
    """`stop_all` ends the whole process tree, says what it stopped, and has nothing to say the second time."""
    server = servers.start("mlflow")
    children = psutil.Process(server.pid).children()
    assert children
    assert servers.stop_all() == {"mlflow": server}
    assert not any(child.is_alive(process.pid, process.create_time()) for process in children if process.is_running())
    assert not child.is_alive(server.pid, server.created)
    assert servers.find("mlflow") is None
    assert servers.stop_all() == {}


def test_a_stale_record_is_no_server(project: Path) -> None:
    """A record whose pid belongs to another process now is neither found nor stopped."""
    own = psutil.Process()
    (project / "work").mkdir()
    record = {"pid": own.pid, "created": own.create_time() - 100, "port": 1, "url": "http://127.0.0.1:1", "log": "x"}
    (project / "work" / "servers.json").write_text(json.dumps({"mlflow": record}))
    assert servers.find("mlflow") is None
    assert servers.stop_all() == {}
    (project / "work" / "servers.json").write_text("{half a rec")
    assert servers.find("mlflow") is None
    assert servers.start("mlflow").pid != own.pid


@pytest.mark.usefixtures("project")
def test_a_killed_server_is_replaced() -> None:
    """A server that was killed is started anew."""
    first = servers.start("mlflow")
    child.stop(first.pid)
    second = servers.start("mlflow")
    assert second.pid != first.pid
    assert servers.find("mlflow") == second


@pytest.mark.usefixtures("project")
def test_ports() -> None:
    """A port that was asked for and is taken is an error; the usual one taken means a free one."""
    with socket.create_server((servers.HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: taken"):
            servers.start("mlflow", port)
        assert servers.find("mlflow") is None
    port = free_port()
    server = servers.start("mlflow", port)
    assert server.port == port
    with pytest.raises(UserError, match="`leanlm down` stops it"):
        servers.start("mlflow", free_port())


@pytest.mark.usefixtures("project")
def test_a_port_that_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port the system keeps for itself isn't called taken."""

    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    with pytest.raises(UserError, match="port 80: not permitted"):
        servers.start("mlflow", 80)


def test_another_command_that_does_not_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits in vain for another command is told what it waited for, and what to do."""
    monkeypatch.setattr(servers, "LOCK_SECONDS", 0.2)
    (project / "work").mkdir()
    (project / "work" / "servers.json").write_text("{}")
    with FileLock(project / "work" / "servers.lock"):
        for command in (servers.stop_all, lambda: servers.start("mlflow")):
            with pytest.raises(UserError, match="another command has been starting or stopping servers") as error:
                command()
            assert "wait until it has ended" in error.value.hint


@pytest.mark.usefixtures("project")
def test_the_usual_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another program has the usual port, a free one is taken."""
    with socket.create_server((servers.HOST, 0)) as other:
        usual = other.getsockname()[1]
        monkeypatch.setitem(servers.KINDS, "mlflow", Kind(usual, "/", SMALL))
        assert servers.start("mlflow").port != usual


def test_a_server_that_cannot_start_names_its_log(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends at once: a sentence with its log, and no record."""
    monkeypatch.setitem(servers.KINDS, "mlflow", Kind(free_port(), "/", ("-c", "raise SystemExit('no such thing')")))
    with pytest.raises(UserError, match=r"mlflow-server\.log") as error:
        servers.start("mlflow")
    assert "no such thing" in (project / "work" / "logs" / "mlflow-server.log").read_text()
    assert error.value.code == 2
    assert not (project / "work" / "servers.json").exists()


@pytest.mark.usefixtures("project")
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that doesn't answer in time is stopped, and the message says how long was waited."""
    monkeypatch.setattr(servers, "START_SECONDS", 1.0)
    monkeypatch.setitem(servers.KINDS, "mlflow", Kind(free_port(), "/", ("-c", "import time; time.sleep(60)")))
    with pytest.raises(UserError, match="did not answer within 1 s"):
        servers.start("mlflow")
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in psutil.Process().children())


def test_a_server_is_not_left_behind_by_sigterm(project: Path) -> None:
    """SIGTERM while a server starts: words, exit code 130, and the server, which nobody has recorded yet, has ended."""
    code = (
        "from flows import cli, servers;"
        "hangs = ('-c', 'import time; time.sleep(600)');"
        f"servers.KINDS['mlflow'] = servers.Kind({free_port()}, '/', hangs);"
        "command = cli.click.Command('hang', callback=lambda: servers.start('mlflow'));"
        "cli.main.add_command(command); cli.main(['hang'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=project, stderr=subprocess.PIPE, text=True)
    (server,) = flow.awaited(psutil.Process(process.pid).children)
    created = server.create_time()
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "stopped; what was done so far is kept\n")
    assert not child.is_alive(server.pid, created)
    assert not (project / "work" / "servers.json").exists()


@pytest.mark.slow
def test_the_real_ones(tmp_path: Path, prefect_server: Path) -> None:
    """`leanlm ui` starts MLflow, finds Prefect, both on loopback only; `leanlm ui` again finds both."""
    folder = toy.make(tmp_path / "toy")
    (folder / "work").mkdir()
    (folder / "work" / "servers.json").write_text(prefect_server.read_text())
    try:
        first = toy.leanlm(folder, "ui")
        assert first.returncode == 0, first.stderr
        assert toy.leanlm(folder, "ui").stdout == first.stdout
        record = json.loads((folder / "work" / "servers.json").read_text())
        for name in ("mlflow", "prefect"):
            assert record[name]["url"] in first.stdout
            process = psutil.Process(record[name]["pid"])
            for each in [process, *process.children(recursive=True)]:
                listening = [c.laddr.ip for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                assert set(listening) <= {"127.0.0.1"}
        assert (folder / "mlruns" / "mlflow.db").exists()
    finally:
        document = json.loads((folder / "work" / "servers.json").read_text())
        del document["prefect"]  # it belongs to every test
        (folder / "work" / "servers.json").write_text(json.dumps(document))
        stopped = toy.leanlm(folder, "down")
    assert stopped.stdout.startswith("stopped mlflow")
    assert toy.leanlm(folder, "down").stdout == "no server is running\n"
