"""Whether a house is whole: both servers, the deployments, a worker for each of their pools, the limit of the GPU."""

from __future__ import annotations

from typing import Any

import requests
import yaml

from flows.commands.doctor import Finding, findings_of, mlflow_server
from flows.servers.connecting import configured_server
from flows.servers.prefect_api import PrefectServer
from recognition.errors import TrackingError
from recognition.settings import project_root, tracking_uri

GPU, LOCAL = "gpu", "local"
START_ONE = "start one with `recognition up`"


def check_house() -> list[Finding]:
    """Check the servers that the environment names, or those of the running house, and what a run needs of them."""
    server = configured_server()
    if server is None:
        return [Finding("house", False, "no house is running in this state folder: `recognition up` starts one")]
    findings = findings_of({"prefect": lambda: _prefect(server), "mlflow": _mlflow})
    if findings[0].ok:
        findings += findings_of({"deployments": lambda: _deployments(server)})
        findings += _workers(server)
        findings += findings_of({"gpu queue": lambda: _gpu_limit(server)})
    return findings


def _prefect(server: PrefectServer) -> tuple[bool, str]:
    return True, f"{server.api} answers, version {server.check()}"


def _mlflow() -> tuple[bool, str]:
    if not tracking_uri().startswith("http"):
        return False, f"no MLflow server answers: results are read from {tracking_uri()}; {START_ONE}"
    return mlflow_server()


def _deployments(server: PrefectServer) -> tuple[bool, str]:
    content = yaml.safe_load((project_root() / "prefect.yaml").read_text(encoding="utf-8"))
    wanted = [said["name"] for said in content["deployments"]]
    there = {found["name"] for found in _ask(server, "deployments/filter", {})}
    missing = [name for name in wanted if name not in there]
    if missing:
        return False, f"{', '.join(missing)}: not on {server.api}; `recognition deploy` applies them"
    return True, ", ".join(sorted(there))


def _workers(server: PrefectServer) -> list[Finding]:
    """One finding for each work pool that a deployment runs in."""
    pools: dict[str, list[str]] = {}
    for found in _ask(server, "deployments/filter", {}):
        pools.setdefault(found["work_pool_name"] or "", []).append(found["name"])
    findings = []
    for pool, names in sorted(pools.items()):
        of_it = f"deployment {', '.join(sorted(names))}"
        if not pool:
            findings.append(Finding("worker", True, f"{of_it}: served by a process of its own, in no work pool"))
            continue
        workers = _ask(server, f"work_pools/{pool}/workers/filter", {})
        online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
        if online:
            findings.append(Finding("worker", True, f"work pool {pool}: {', '.join(online)} online, for {of_it}"))
            continue
        start = f"`prefect worker start --pool {pool}`" + (" or `recognition up`" if pool == LOCAL else "")
        text = f"{of_it}: no worker answers for work pool {pool}; start one with {start}"
        findings.append(Finding("worker", False, text))
    return findings


def _gpu_limit(server: PrefectServer) -> tuple[bool, str]:
    try:
        limit = server.ask(f"v2/concurrency_limits/{GPU}")
    except requests.HTTPError:
        return False, f"no global concurrency limit {GPU}: GPU runs would collide; `recognition deploy` makes it"
    except requests.RequestException as error:
        return False, f"{server.api} did not answer ({type(error).__name__})"
    return True, f"global concurrency limit {GPU}: {limit['limit']}, in use {limit['active_slots']}"


def _ask(server: PrefectServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All pages of a list."""
    found: list[dict[str, Any]] = []
    while True:
        try:
            page = server.ask(path, body | {"limit": 200, "offset": len(found)})
        except requests.RequestException as error:
            raise TrackingError(f"{server.api} did not answer ({type(error).__name__}).") from None
        found += page
        if len(page) < 200:
            return found
