"""The whole house on one machine: a Prefect server, an MLflow server over the same store, deployments and a worker."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import requests
from filelock import FileLock, Timeout

from flows.house.addresses import Addresses, address_file, reach_this_machine_directly, running_house, write_addresses
from flows.house.interruption import Interrupted, Interruption
from flows.house.pages import keep_pages_to_this_server, pages_folder
from flows.house.parts import end_all, end_of_log, log_file, start
from flows.house.ports import THIS_MACHINE, refuse_busy
from flows.servers.prefect_api import PrefectServer
from recognition.errors import ConfigurationError, StorageError, TrackingError
from recognition.settings import home, tracking_settings, tracking_uri

SECONDS_TO_ANSWER = 240.0
SECONDS_FOR_CARETAKER = 60.0
POOL = "local"
# machines of a team may share a work pool
WORKER = f"house-{socket.gethostname()}"
MOST_RESTARTS = 3
# `recognition deploy`, which imports Prefect while the servers come up and waits to be told that they answer
DEPLOYING = (
    "import sys, flows.deployments.deploying; from flows.cli import main; input(); sys.argv[1:] = ['deploy']; main()"
)


def up(
    prefect_port: int,
    mlflow_port: int,
    limit: int,
    opened: Callable[[Addresses], None],
    say: Callable[[str], None],
) -> None:
    """Start everything, say where it answers, and stop it all when this process is asked to end.

    A server that the environment or ``mlflow.yaml`` names by an address is used, not started.

    Args:
        prefect_port: of the Prefect server.
        mlflow_port: of the MLflow server.
        limit: so many runs the worker works on at once.
        opened: told the addresses, once all of them answer and the worker is online.
        say: told what happens.

    Raises:
        ConfigurationError: a port is busy, or this state folder's house is running already.
        StorageError: the state folder cannot be written.
        TrackingError: a part ended or does not answer; the message holds the end of its log.
        KeyboardInterrupt: Ctrl-C; everything has ended.
    """
    interruption = Interruption()
    try:
        with interruption.listening(), _only_house():
            _House(prefect_port, mlflow_port, limit, say).keep(opened, interruption)
    except Interrupted:
        pass
    if interruption.number == signal.SIGINT:
        raise KeyboardInterrupt


@contextmanager
def _only_house() -> Iterator[None]:
    """Hold the state folder, so that two houses never share it."""
    folder = home()
    lock = FileLock(folder / "house.lock")
    try:
        with tempfile.TemporaryFile(dir=folder):  # a lock that may not be written looks like one that is taken
            pass
        lock.acquire(timeout=0)
    except Timeout:
        there = running_house()
        where = f"prefect {there.prefect}, mlflow {there.mlflow}, process {there.pid}" if there else "it is starting"
        raise ConfigurationError(
            f"A house is running in {folder} already ({where}). Use it, stop it by Ctrl-C, or name another folder in "
            "RECOGNITION_HOME."
        ) from None
    except OSError as error:
        raise StorageError(
            f"The state folder {folder} cannot be written ({error.strerror}): give a folder you may write to in "
            "RECOGNITION_HOME."
        ) from error
    with lock:
        yield


class _House:
    """The parts of one house, and their environment."""

    def __init__(self, prefect_port: int, mlflow_port: int, limit: int, say: Callable[[str], None]) -> None:
        self.limit, self.say = limit, say
        named_prefect, named_mlflow = os.environ.get("PREFECT_API_URL", "").rstrip("/"), tracking_uri()
        self.owns_prefect, self.owns_mlflow = not named_prefect, not named_mlflow.startswith("http")
        ports = {}
        if self.owns_prefect:
            ports["--prefect-port"] = prefect_port
        if self.owns_mlflow:
            ports["--mlflow-port"] = mlflow_port
        refuse_busy(ports)
        self.ports = ports
        process = psutil.Process()
        api = named_prefect or f"http://{THIS_MACHINE}:{prefect_port}/api"
        self.addresses = Addresses(
            prefect=(os.environ.get("PREFECT_UI_URL") or api.removesuffix("/api")).rstrip("/"),
            api=api,
            mlflow=f"http://{THIS_MACHINE}:{mlflow_port}" if self.owns_mlflow else named_mlflow.rstrip("/"),
            pid=process.pid,
            created=process.create_time(),
        )
        self.mark = f"{process.pid}-{process.create_time():.2f}"
        reach_this_machine_directly()
        self.environment = os.environ | self._environment()
        # this process asks the server, too
        os.environ.update({k: v for k, v in self.environment.items() if k == "PREFECT_API_AUTH_STRING"})
        self.server = PrefectServer.of_environment(api)
        self.parts: dict[str, subprocess.Popen[bytes]] = {}

    def keep(self, opened: Callable[[Addresses], None], interruption: Interruption) -> None:
        """Start all parts, and watch them until one ends or a signal comes; then end the rest."""
        caretaker = subprocess.Popen(
            [sys.executable, "-m", "flows.house.caretaker", self.mark, self.addresses.api],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._open()
            write_addresses(self.addresses)
            opened(self.addresses)
            self._watch()
        finally:
            interruption.ending = True
            if interruption.number is not None:
                with suppress(OSError):  # the terminal may be gone
                    self.say("stopping: runs, worker and servers (again, and nothing is waited for) ...")
            with suppress(OSError):
                address_file().unlink(missing_ok=True)
            end_all(self.mark, self.addresses.api, interruption.is_hurried)
            for part in self.parts.values():
                part.wait()
            with suppress(subprocess.TimeoutExpired):
                caretaker.communicate(timeout=SECONDS_FOR_CARETAKER)

    def _open(self) -> None:
        self.say(f"starting ... (logs in {home() / 'logs'})")
        for name in ("prefect", "mlflow", "deployments", "worker"):
            _begin_log(name)
        if self.owns_prefect:
            self._start("prefect", self._prefect_words())
        else:
            self.server.check()
        if self.owns_mlflow:
            self._start("mlflow", self._mlflow_words())
        else:
            from recognition.tracking import check_store

            check_store()
        self._start("deployments", [sys.executable, "-c", DEPLOYING])
        self._until("prefect", self._prefect_answers)
        if self.owns_prefect:
            keep_pages_to_this_server(self.addresses.api)
        if self.owns_mlflow:
            self._until("mlflow", lambda: requests.get(f"{self.addresses.mlflow}/health", timeout=5).ok)
        deploying = self.parts["deployments"]
        assert deploying.stdin is not None
        with suppress(BrokenPipeError):
            deploying.stdin.write(b"\n")
            deploying.stdin.flush()
        # the worker's imports run beside the deployments; the pool is theirs to make, with its template
        self._until("deployments", lambda: bool(self.server.ask(f"work_pools/{POOL}")) or deploying.poll() == 0)
        self._start_worker()
        self._until("deployments", lambda: deploying.poll() == 0)
        del self.parts["deployments"]

    def _start(self, name: str, words: list[str]) -> None:
        self.parts[name] = start(name, words, self.environment, self.mark)

    def _start_worker(self) -> None:
        began = time.time()
        self._start("worker", self._worker_words())
        self._until("worker", lambda: self._worker_is_online(began))

    def _until(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait for a part.

        Raises:
            TrackingError: it, or another part, has ended, or it is not ready in time.
        """
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while time.monotonic() < deadline:
            with suppress(requests.RequestException):
                if ready():
                    return
            for part, process in self.parts.items():
                if process.poll() not in (None, 0) or (part != "deployments" and process.poll() is not None):
                    raise TrackingError(f"{part} ended with code {process.returncode}. {end_of_log(part)}")
            time.sleep(0.1)
        raise TrackingError(f"{name} does not answer after {SECONDS_TO_ANSWER:g} s. {end_of_log(name)}")

    def _watch(self) -> None:
        restarts = 0
        while True:
            for name, process in self.parts.items():
                if process.poll() is None:
                    continue
                ended = f"{name} ended with code {process.returncode}"
                if name != "worker" or restarts == MOST_RESTARTS:
                    raise TrackingError(f"{ended}. {end_of_log(name)}")
                restarts += 1
                self.say(f"{ended}; it is started again ({restarts} of {MOST_RESTARTS}), its log is {log_file(name)}")
                self._start_worker()
                break
            time.sleep(0.5)

    def _prefect_answers(self) -> bool:
        return not self.owns_prefect or bool(self.server.ask("health"))

    def _worker_is_online(self, since: float) -> bool:
        """Whether the worker has reported after ``since``, in seconds since 1970."""
        return any(
            worker["name"] == WORKER
            and worker["status"] == "ONLINE"
            and datetime.datetime.fromisoformat(worker["last_heartbeat_time"]).timestamp() > since
            for worker in self.server.ask(f"work_pools/{POOL}/workers/filter", {})
        )

    def _environment(self) -> dict[str, str]:
        """What the parts are told, and the runs by the worker."""
        told = {
            "PREFECT_API_URL": self.addresses.api,
            # links to the newer pages: without /v2 they open the older ones, whose dropdowns do not stay open
            "PREFECT_UI_URL": os.environ.get("PREFECT_UI_URL") or f"{self.addresses.prefect}/v2",
            "MLFLOW_TRACKING_URI": self.addresses.mlflow,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        if "--prefect-port" in self.ports:
            told["PREFECT_SERVER_API_PORT"] = str(self.ports["--prefect-port"])
        if "RECOGNITION_HOME" in os.environ:
            # runs start in folders of their own
            told["RECOGNITION_HOME"] = str(home())
        defaults = {
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            # a worker counts as offline after three of them
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_UI_STATIC_DIRECTORY": str(pages_folder()),
            "PREFECT_API_AUTH_STRING": os.environ.get("PREFECT_SERVER_API_AUTH_STRING", ""),
        }
        return told | {name: os.environ.get(name, value) for name, value in defaults.items() if value}

    def _prefect_words(self) -> list[str]:
        return [_program("prefect"), "server", "start", "--host", THIS_MACHINE, "--port", self._port("--prefect-port")]

    def _mlflow_words(self) -> list[str]:
        """Artifacts lie where commands without a server put them, so that both see the same files."""
        # by the environment: the store's address may hold a password, and everybody can read command lines
        self.environment["MLFLOW_BACKEND_STORE_URI"] = tracking_uri()
        artifacts = tracking_settings().artifact_location or (home() / "artifacts").as_uri()
        where = ["--host", THIS_MACHINE, "--port", self._port("--mlflow-port"), "--workers", "1"]
        return [_program("mlflow"), "server", *where, "--default-artifact-root", artifacts, "--no-serve-artifacts"]

    def _worker_words(self) -> list[str]:
        what = ["--pool", POOL, "--type", "process", "--name", WORKER, "--limit", str(self.limit)]
        return [_program("prefect"), "worker", "start", *what]

    def _port(self, option: str) -> str:
        return str(self.ports[option])


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _begin_log(part: str) -> None:
    """An empty log; what the last house wrote lies beside it."""
    path = log_file(part)
    if path.is_file():
        path.replace(path.with_suffix(".log.old"))
    path.touch()
