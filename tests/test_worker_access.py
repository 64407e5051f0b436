"""Whoever presses Run reads neither the worker's files nor its private network: triggered runs of a real worker."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from conftest import OpenHouse
from sample_images import folder_of

pytestmark = pytest.mark.server
ONE_EPOCH = {"training": {"epochs": 1}, "registration": {"enabled": False}}


def test_a_triggered_run_reads_only_what_the_workers_operator_allows(open_house: OpenHouse, tmp_path: Path) -> None:
    permitted = folder_of(open_house.images / "pets", "cat", "dog", count=12)
    elsewhere = folder_of(tmp_path / "elsewhere", "cat", "dog", count=12)
    (open_house.images / "link").symlink_to(elsewhere)
    refused = {
        str(open_house.images / "link"): "ROOTS",
        f"{open_house.mlflow}/pets.zip": "HOSTS",
    }
    runs = [
        open_house.trigger("train/train", ONE_EPOCH | {"data": {"source": source}})
        for source in (str(permitted), *refused)
    ]
    completed, *failed = open_house.ended(*runs)
    assert completed["state_type"] == "COMPLETED", completed["state"]["message"]
    for run, setting in zip(failed, refused.values(), strict=True):
        assert run["state_type"] == "FAILED"
        assert f"RECOGNITION_ALLOWED_{setting}" in run["state"]["message"]
    store = f"{open_house.mlflow}/api/2.0/mlflow"
    experiments = requests.post(f"{store}/experiments/search", json={"max_results": 10}, timeout=30).json()
    search = {
        "experiment_ids": [found["experiment_id"] for found in experiments["experiments"]],
        "filter": f"tags.`prefect.flow_run_id` = '{completed['id']}'",
    }
    found = requests.post(f"{store}/runs/search", json=search, timeout=30).json()["runs"]
    assert [run["info"]["status"] for run in found] == ["FINISHED"]
