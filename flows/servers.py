"""The project's own servers, Prefect's and MLflow's: on loopback, started once, found again, stopped on request."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows import child
from flows.environment import WORK
from flows.locked import locked
from tasks.core.errors import UserError

HOST = "127.0.0.1"
START_SECONDS = 180.0
LOCK_SECONDS = START_SECONDS + 30
"""How long to wait for a command that is starting or stopping a server."""


@dataclass(frozen=True)
class Kind:
    """One kind of server.

    Attributes:
        port: the usual port; another is taken where it is busy.
        health: path that answers 200 once the server works.
        command: its arguments after the interpreter, less host and port.
    """

    port: int
    health: str
    command: tuple[str, ...]


KINDS = {
    "prefect": Kind(4200, "/api/health", ("-m", "prefect", "server", "start")),
    "mlflow": Kind(
        5000,
        "/health",
        (
            *("-m", "mlflow", "server", "--workers", "1"),
            *("--backend-store-uri", "sqlite:///mlruns/mlflow.db", "--artifacts-destination", "mlruns/artifacts"),
        ),
    ),
}


@dataclass(frozen=True)
class Server:
    """A server that was started; `created` is its process's birth in seconds since 1970: a pid may be used again."""

    pid: int
    created: float
    port: int
    url: str
    log: str


def start(name: str, port: int | None = None) -> Server:
    """The project's server `name`: the one that runs already, else a new one in the background.

    Raises:
        UserError: `port` is taken, or the server doesn't come up.
    """
    server = find(name)
    if server is None or (port is not None and port != server.port):
        with _alone():
            server = find(name)  # another process may have started it while this one waited
            if server is None:
                _stop_silent(name)
                server = _launch(name, KINDS[name], _free_port(KINDS[name].port) if port is None else port)
                _record({**_recorded(), name: server})
    if port is not None and port != server.port:
        raise UserError(f"{name} runs on port {server.port} already: {server.url}", "`leanlm down` stops it")
    return server


def find(name: str) -> Server | None:
    """The recorded server if it is alive, is the process that was started, and answers."""
    server = _recorded().get(name)
    if (
        server is None
        or not child.is_alive(server.pid, server.created)
        or not _healthy(server.url + KINDS[name].health)
    ):
        return None
    return server


def stop_all() -> dict[str, Server]:
    """Stop every server this project started, whole process trees; returns those that were running.

    Raises:
        UserError: another command doesn't come to an end with them.
    """
    if not (WORK / "servers.json").exists():
        return {}
    with _alone():
        running = {name: server for name, server in _recorded().items() if child.is_alive(server.pid, server.created)}
        for server in running.values():
            child.stop(server.pid)
        (WORK / "servers.json").unlink(missing_ok=True)
    return running


def _alone() -> AbstractContextManager[None]:
    """One command at a time starts or stops servers; a `UserError` where another one has been at it for too long."""
    said = f"another command has been starting or stopping servers in this folder for {LOCK_SECONDS:.0f} s"
    return locked(WORK / "servers.lock", LOCK_SECONDS, said, "wait until it has ended, or stop it")


def _stop_silent(name: str) -> None:
    """Stop a recorded server that is alive but doesn't answer."""
    server = _recorded().get(name)
    if server is not None and child.is_alive(server.pid, server.created):
        child.stop(server.pid)


def _launch(name: str, kind: Kind, port: int) -> Server:
    if obstacle := _obstacle(port):
        raise UserError(f"port {port}: {obstacle}", "choose another, or none: then a free one is taken")
    log = WORK / "logs" / f"{name}-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    Path("mlruns").mkdir(exist_ok=True)
    command = [sys.executable, *kind.command, "--host", HOST, "--port", str(port)]
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # not subprocess: the server is meant to outlive this process, which Popen would complain about
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=streams, setsid=True)
    try:
        server = Server(pid, psutil.Process(pid).create_time(), port, f"http://{HOST}:{port}", str(log))
        _await(name, server, kind)
    except BaseException:
        child.stop(pid)
        os.waitpid(pid, 0)
        raise
    return server


def _await(name: str, server: Server, kind: Kind) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(server.url + kind.health):
        if not child.is_alive(server.pid, server.created):
            raise UserError(f"{name}'s server ended while starting", f"see {server.log}")
        if time.monotonic() > deadline:
            raise UserError(f"{name}'s server did not answer within {START_SECONDS:.0f} s", f"see {server.log}")
        time.sleep(0.1)
    if not child.is_alive(server.pid, server.created):
        raise UserError(f"port {server.port}: another program answers there", f"see {server.log}")


def _healthy(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _obstacle(port: int) -> str:
    """Why a server can't listen at `port`, "" where it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except PermissionError:
            return "not permitted to this user, as ports below 1024 usually are"
        except OSError as error:
            return "taken by another program" if error.errno == errno.EADDRINUSE else str(error.strerror or error)
    return ""


def _free_port(usual: int) -> int:
    if not _obstacle(usual):
        return usual
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _recorded() -> dict[str, Server]:
    """What servers.json says; a damaged one counts as none."""
    try:
        entries = json.loads((WORK / "servers.json").read_text(encoding="utf-8"))
        return {name: Server(**entry) for name, entry in entries.items() if name in KINDS}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _record(servers: dict[str, Server]) -> None:
    temporary = WORK / "servers.json.tmp"
    entries = {name: asdict(server) for name, server in servers.items()}
    temporary.write_text(json.dumps(entries, indent=1), encoding="utf-8")
    os.replace(temporary, WORK / "servers.json")
