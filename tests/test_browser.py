"""A person with only a browser: run with changed values, watch, find the result in MLflow, set a schedule.

With ``RECOGNITION_SCREENSHOTS`` set to a folder the pages met on the way are kept there (``make screenshots``).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from conftest import ROOT, OpenHouse

from recognition.configuration import build_experiment

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page, Route

pytestmark = pytest.mark.server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
GROUPS = ("data", "augmentation", "model", "training", "evaluation", "registration")
PATIENCE = 120_000
"""Milliseconds until something has to have appeared."""


@dataclass(frozen=True)
class Visit:
    """A browser on the pages of an open house, and the other hosts that they wanted to ask."""

    house: OpenHouse
    page: Page
    strangers: set[str] = field(default_factory=set)

    def keep(self, name: str) -> None:
        """A picture of what is seen now, where pictures are asked for."""
        if folder := os.environ.get("RECOGNITION_SCREENSHOTS"):
            self.page.wait_for_timeout(1000)
            self.page.screenshot(path=Path(folder) / f"prefect_{name}.png")

    def open_deployment(self, name: str) -> None:
        """From the house's address to a deployment's page."""
        self.page.goto(self.house.prefect)
        self.page.get_by_role("link", name="Deployments").click()
        self.page.get_by_placeholder("Search deployments", exact=True).wait_for()
        self.keep("deployments")
        # other tests may have left many in this house
        self.page.goto(f"{self.page.url.partition('?')[0]}?limit=100")
        self.page.locator("a[href*='/deployment/']", has_text=re.compile(f"^{name}$")).click()
        self.page.get_by_role("button", name="Run", exact=True).wait_for()

    def open_form(self) -> None:
        """From the deployment's page to its form."""
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.epochs.wait_for()

    @property
    def epochs(self) -> Locator:
        return self.page.get_by_label("Epochs (Optional)", exact=True)

    @property
    def submit(self) -> Locator:
        return self.page.get_by_role("button", name="Submit")

    def deployment(self, name: str = "train") -> dict[str, Any]:
        """A deployment of the flow `train`, as the server knows it."""
        found: dict[str, Any] = requests.get(f"{self.house.api}/deployments/name/train/{name}", timeout=30).json()
        return found

    def runs(self) -> int:
        """How many flow runs there are of `train`."""
        chosen = {"deployments": {"id": {"any_": [self.deployment()["id"]]}}}
        return int(requests.post(f"{self.house.api}/flow_runs/count", json=chosen, timeout=30).json())


@pytest.fixture
def visit(open_house: OpenHouse, tmp_path: Path) -> Iterator[Visit]:
    """A browser with an empty profile that reaches this machine only."""
    if CHROMIUM is None:
        pytest.skip("needs a browser: chromium, chromium-browser or google-chrome on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
    with sync_api.sync_playwright() as playwright:
        context: BrowserContext = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1200, "height": 800},
            timezone_id="UTC",
        )
        context.set_default_timeout(PATIENCE)
        found = Visit(open_house, context.pages[0])

        def only_here(route: Route) -> None:
            host = urlsplit(route.request.url).hostname
            if host in {"127.0.0.1", "localhost", None}:
                route.continue_()
            else:
                found.strangers.add(host)
                route.abort()

        context.route("**/*", only_here)
        yield found
        context.close()


def test_a_person_with_only_a_browser_trains_watches_finds_the_result_and_sets_a_schedule(visit: Visit) -> None:
    page = visit.page
    visit.open_deployment("train")
    visit.open_form()
    visit.keep("form")
    network = page.get_by_label("Select Network", exact=True)
    network.click()
    page.get_by_role("option", name="torchvision/resnet18", exact=True).wait_for()
    visit.keep("network")
    page.get_by_role("option", name="rnn", exact=True).click()
    assert network.inner_text() == "rnn"
    visit.epochs.fill("2")
    visit.submit.click()
    page.get_by_role("link", name="View run").click()

    # its page: how it ends, what it says, and what it leaves
    page.get_by_text("Completed", exact=True).first.wait_for()
    # without the note that the run was started, which stays in front of the page
    page.reload()
    page.get_by_text(re.compile("epoch 2/2 .*val/accuracy")).first.wait_for()
    visit.keep("run")
    run = page.url.partition("/flow-run/")[2].partition("?")[0]
    asked = requests.get(f"{visit.house.api}/flow_runs/{run}", timeout=30).json()["parameters"]
    assert (asked["model"]["network"], asked["training"]["epochs"], asked["data"]["source"]) == ("rnn", 2, "digits")
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("mlflow-run").wait_for()
    visit.keep("artifacts")
    page.get_by_text("mlflow-run").click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    link = page.get_by_role("link", name="The run in MLflow")
    link.wait_for()

    # the result, in MLflow
    address = link.get_attribute("href")
    assert address is not None
    assert address.startswith(visit.house.mlflow)
    link.click()
    page.get_by_text("test/accuracy", exact=True).first.scroll_into_view_if_needed()
    page.get_by_text("rnn", exact=True).first.wait_for()
    visit.keep("mlflow_run")

    # a schedule, and the next run on it
    visit.open_deployment("train")
    page.get_by_role("button", name="Schedule", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("tab", name="Cron").click()
    dialog.get_by_label("Value", exact=True).fill("30 4 1 1 *")
    visit.keep("schedule")
    dialog.get_by_role("button", name="Save").click()
    page.get_by_text("At 04:30 AM", exact=False).first.wait_for()
    page.get_by_role("tab", name="Upcoming").click()
    page.get_by_text(re.compile(r"/01/01 04:30:00 AM")).first.wait_for()
    visit.keep("upcoming")
    mine = [kept for kept in visit.deployment()["schedules"] if kept["schedule"].get("cron") == "30 4 1 1 *"]
    assert [(kept["active"], kept["parameters"]) for kept in mine] == [(True, {})]
    address = f"{visit.house.api}/deployments/{visit.deployment()['id']}/schedules/{mine[0]['id']}"
    assert requests.delete(address, timeout=30).ok

    assert visit.strangers == set(), "the pages ask hosts that are not this machine"


def test_a_form_with_a_value_out_of_bounds_says_so_and_creates_no_run(visit: Visit) -> None:
    before = visit.runs()
    visit.open_deployment("train")
    visit.open_form()
    visit.epochs.fill("0")
    visit.submit.click()
    said = visit.epochs.evaluate("field => field.validationMessage")
    assert said == "Value must be greater than or equal to 1."
    visit.epochs.fill("2")
    # above 0: the browser knows no such bound, the server does
    visit.page.get_by_label("Learning Rate (Optional)", exact=True).fill("0")
    visit.submit.click()
    visit.page.get_by_text(re.compile("less than or equal to the minimum of 0")).first.wait_for()
    visit.keep("refused")
    assert visit.runs() == before


def test_the_form_of_an_experiment_file_shows_its_values_and_keeps_its_transforms(visit: Visit) -> None:
    path = ROOT / "experiments" / "cifar10_vit.yaml"
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    deployed = visit.house.house.run("deploy", str(path))
    assert deployed.returncode == 0, deployed.stderr
    visit.open_deployment("cifar10_vit")
    visit.open_form()
    assert visit.page.get_by_label("Select Network", exact=True).inner_text() == "vit"
    assert visit.epochs.input_value() == str(said["training"]["epochs"])
    visit.page.get_by_text(re.compile("lists transforms of its own")).wait_for()
    visit.epochs.fill("1")
    # what the form sends; the server is not to train it
    visit.page.route("**/create_flow_run", lambda route: route.abort())
    with visit.page.expect_request("**/create_flow_run") as sent:
        visit.submit.click()
    parameters = sent.value.post_data_json["parameters"]
    said["training"]["epochs"] = 1
    assert build_experiment({name: parameters[name] for name in GROUPS}) == build_experiment(
        {name: said[name] for name in GROUPS if name in said}
    )
    address = f"{visit.house.api}/deployments/{visit.deployment('cifar10_vit')['id']}"
    assert requests.delete(address, timeout=30).ok
