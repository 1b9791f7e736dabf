"""The page of a deployment in a real browser, with a real worker that is told what to be."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page, expect

from inference.models import Deployment
from tests import factories
from tests.e2e.conftest import House
from tests.factories import unique
from tests.live import Deployed, LivePortal, deploy

LogIn = Callable[..., Page]
PATIENCE = 120_000

# Two workers are started one after the other.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def deployed(live_portal: LivePortal) -> Deployed:
    return deploy(live_portal.servers, unique("lab"), options={"token_ms": 5, "slots": 2})


@pytest.fixture
def path(deployed: Deployed) -> str:
    found = Deployment.objects.get(name=deployed.deployment)
    return f"/admin/inference/deployment/{found.pk}/"


def tell(page: Page, title: str, button: str) -> None:
    """Gives an order in the table of workers, and confirms it."""
    page.locator("[data-live] tbody").get_by_text(title, exact=True).click()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_text("The order is given")).to_be_visible()


def state(page: Page, text: str) -> None:
    """Waits until the table shows a state by itself."""
    label = page.locator("[data-live] tbody .fh-label").first
    expect(label).to_have_text(text, timeout=PATIENCE)


def test_worker_is_drained_unloaded_and_loaded_again_and_no_request_is_lost(
    log_in: LogIn, live_portal: LivePortal, house: House, deployed: Deployed, path: str
) -> None:
    page = log_in("system")
    page.goto(path)
    expect(page.get_by_text("No worker serves this queue: start one")).to_be_visible()
    expect(page.locator("#start-command")).to_contain_text(
        f"WORKER_DEPLOYMENT={deployed.deployment}"
    )
    worker = live_portal.programs.worker(deployed)
    live_portal.programs.wait_served(live_portal.web, deployed, within=180)
    state(page, "Ready")
    token = factories.api_key(house.a).token

    def ask(_number: int) -> int:
        with live_portal.client(token) as client:
            body = {
                "model": deployed.model,
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 64,
            }
            return client.post("/v1/chat/completions", json=body, timeout=120).status_code

    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(ask, number) for number in range(24)]
        tell(page, "Drain", "Drain worker")
        state(page, "Drained")
        expect(page.get_by_text("No worker takes work until one is resumed")).to_be_visible()
        answers += [pool.submit(ask, number) for number in range(8)]
        tell(page, "Unload", "Unload worker")
        state(page, "Unloaded")
        expect(page.locator("[data-live] tbody a.fh-link")).to_have_text(["Load"])
        tell(page, "Load", "Load worker")
        state(page, "Ready")
        assert [answer.result() for answer in answers] == [200] * 32
    # Told once more, and then the process is killed: the next one on this host goes on with it.
    tell(page, "Unload", "Unload worker")
    state(page, "Unloaded")
    names = page.locator("[data-live] tbody tr td:first-child a")
    killed = names.inner_text()
    worker.kill()
    live_portal.programs.started.remove(worker)
    live_portal.programs.worker(deployed)
    expect(names.first).not_to_have_text(killed, timeout=PATIENCE)
    expect(names).to_have_count(1)
    state(page, "Unloaded")
    tell(page, "Load", "Load worker")
    state(page, "Ready")


def test_load_that_fails_is_told_in_words_and_mended_on_the_page(
    log_in: LogIn, deployed: Deployed, path: str
) -> None:
    page = log_in("system")
    page.goto(f"{path}edit/")
    page.get_by_label("Engine options").fill('{"slots": 0}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("slots")
    page.get_by_label("Engine options").fill("{}")
    page.locator("[name=engine]").select_option("openvino")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("[data-live] .fh-label-warning")).to_have_text("stale")
    tell(page, "Load", "Load worker")
    state(page, "Failed")
    expect(page.locator("[data-live] tbody")).to_contain_text("holds no weights for OpenVINO")
    page.goto(f"{path}edit/")
    page.locator("[name=engine]").select_option("fake")
    page.get_by_role("button", name="Save").click()
    tell(page, "Load", "Load worker")
    state(page, "Ready")


def test_live_part_keeps_the_keyboards_place_and_speaks_chinese(log_in: LogIn, path: str) -> None:
    page = log_in("system", language="zh-hans")
    page.goto(path)
    first = page.locator("[data-live] tbody a").first
    first.focus()
    beat = page.locator("[data-live] tbody .fh-when").first
    expect(beat).not_to_have_text(beat.inner_text(), timeout=PATIENCE)
    expect(page.locator("[data-live] tbody a").first).to_be_focused()
    expect(page.get_by_role("columnheader", name="每秒词元")).to_be_visible()
    expect(page.get_by_text("就绪", exact=True).first).to_be_visible()
