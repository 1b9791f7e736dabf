"""The admin site as people of each role meet it."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey, Membership, Quota
from tests.e2e.conftest import House, OpenPage

LogIn = Callable[..., Page]

PAGES = {
    "Overview": "/admin/",
    "Playground": "/admin/playground/",
    "API keys": "/admin/tenants/apikey/",
    "Jobs": "/admin/inference/job/",
    "Batches": "/admin/inference/batch/",
    "Webhooks": "/admin/inference/webhookdelivery/",
    "Webhook secret": "/admin/inference/webhooksecret/",
    "Quotas": "/admin/tenants/quota/",
    "Default quotas": "/admin/tenants/quotadefault/",
    "Usage": "/admin/tenants/usagebucket/",
    "Service accounts": "/admin/tenants/serviceaccount/",
    "Members": "/admin/tenants/membership/",
    "Knowledge bases": "/admin/knowledge/knowledgebase/",
    "Document sources": "/admin/knowledge/documentsource/",
    "Apps": "/admin/knowledge/app/",
    "Triggers": "/admin/knowledge/trigger/",
    "Scenarios": "/admin/knowledge/evaluation/",
    "Connections": "/admin/knowledge/connection/",
    "Models": "/admin/inference/model/",
    "Audit trail": "/admin/audit/auditevent/",
    "Exports": "/admin/tenants/tenantexport/",
    "Tenants": "/admin/tenants/tenant/",
    "Users": "/admin/tenants/user/",
    "Deployments": "/admin/inference/deployment/",
    "Routes": "/admin/inference/route/",
    "Workers": "/admin/inference/worker/",
}
MENUS = {
    "owner": [
        *("Overview", "Playground", "Knowledge bases", "Document sources", "Apps", "Triggers"),
        *(
            "Scenarios",
            "API keys",
            "Jobs",
            "Batches",
            "Webhooks",
            "Webhook secret",
            "Quotas",
            "Default quotas",
            "Usage",
            "Service accounts",
        ),
        *("Members", "Connections", "Models", "Exports"),
    ],
    "developer": [
        *("Overview", "Playground", "Knowledge bases", "Document sources", "Apps", "Triggers"),
        *(
            "Scenarios",
            "API keys",
            "Jobs",
            "Batches",
            "Webhooks",
            "Webhook secret",
            "Quotas",
            "Default quotas",
            "Usage",
            "Service accounts",
        ),
        *("Connections", "Models"),
    ],
    "viewer": [
        *(
            "Overview",
            "Knowledge bases",
            "Document sources",
            "Apps",
            "Triggers",
            "Scenarios",
            "API keys",
            "Jobs",
            "Batches",
            "Quotas",
        ),
        *("Default quotas", "Usage", "Service accounts", "Connections", "Models"),
    ],
    "auditor": ["Overview", "Jobs", "Batches", "Audit trail"],
    "system": [
        "Overview",
        "Tenants",
        "Users",
        "Deployments",
        "Routes",
        "Workers",
        "Usage",
        "Models",
    ],
    "security": ["Overview", "Tenants", "Users"],
    "audit": ["Overview", "Tenants", "Audit trail"],
}


def menu_of(page: Page) -> list[str]:
    """Titles of the menu, in order."""
    return page.locator("nav.fh-menu a span:nth-child(2)").all_inner_texts()


@pytest.mark.parametrize("role", MENUS)
def test_logging_in_lands_on_the_roles_overview_and_opens_its_pages_alone(
    role: str, log_in: LogIn
) -> None:
    page = log_in(role)
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    assert menu_of(page) == MENUS[role]
    seen = {title: page.request.get(path).status for title, path in PAGES.items()}
    assert seen == {title: 200 if title in MENUS[role] else 403 for title in PAGES}


def test_denied_page_says_so_in_words(log_in: LogIn) -> None:
    page = log_in("viewer")
    page.goto("/admin/tenants/apikey/add/")
    expect(page.get_by_role("alert")).to_contain_text("Your role does not include this page")
    page.get_by_role("link", name="To the start page").click()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()


def test_logging_in_with_a_wrong_part_says_the_same_for_both(
    open_page: OpenPage, house: House
) -> None:
    told = set()
    owner = house.people["owner"]
    for email, password in ((owner.email, "wrong"), ("nobody@example.test", owner.password)):
        page = open_page()
        page.goto("/admin/")
        page.get_by_label("E-mail address").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()
        told.add(page.get_by_role("alert").inner_text())
    assert told == {"The e-mail address or the password is not right."}


def test_logging_in_works_by_keyboard_alone(open_page: OpenPage, house: House) -> None:
    page = open_page()
    page.goto("/admin/login/")
    expect(page.get_by_label("E-mail address")).to_be_focused()
    page.keyboard.type(house.people["owner"].email)
    page.keyboard.press("Tab")
    page.keyboard.type(house.people["owner"].password)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
    page.get_by_role("link", name="API keys").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="API keys")).to_be_visible()


def test_switching_the_language_at_log_in_changes_the_page(open_page: OpenPage) -> None:
    page = open_page()
    page.goto("/admin/login/")
    page.get_by_role("button", name="简体中文").click()
    expect(page.get_by_role("button", name="登录")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "zh-hans"


def test_making_a_key_shows_its_token_once(log_in: LogIn) -> None:
    page = log_in("owner")
    page.goto("/admin/tenants/apikey/add/")
    page.get_by_label("Name").fill("Till")
    page.get_by_role("button", name="Create key").click()
    token = page.locator("#secret").inner_text()
    assert re.fullmatch(r"fh_\S{30,}", token)
    assert token in page.locator("#curl").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.get_by_role("link", name="I have kept it").click()
    expect(page.get_by_role("heading", level=1, name="Till")).to_be_visible()
    assert token not in page.content()
    page.goto("/admin/tenants/apikey/")
    assert token not in page.content()


def test_made_key_works_against_the_gateway_until_it_is_revoked(log_in: LogIn) -> None:
    page = log_in("owner")
    page.goto("/admin/tenants/apikey/add/")
    page.get_by_label("Name").fill("Short-lived")
    page.get_by_role("button", name="Create key").click()
    headers = {"Authorization": f"Bearer {page.locator('#secret').inner_text()}"}
    assert page.request.get("/v1/models", headers=headers).status == 200
    page.get_by_role("link", name="I have kept it").click()
    page.get_by_role("link", name="Revoke").click()
    page.get_by_label("Reason").fill("a test")
    page.get_by_role("button", name="Revoke key").click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    assert page.request.get("/v1/models", headers=headers).status == 401


def test_rotating_a_key_shows_the_new_secret_once_and_both_work(log_in: LogIn) -> None:
    page = log_in("owner")
    page.goto("/admin/tenants/apikey/add/")
    page.get_by_label("Name").fill("Till")
    page.get_by_role("button", name="Create key").click()
    tokens = [page.locator("#secret").inner_text()]
    page.get_by_role("link", name="I have kept it").click()
    page.get_by_role("link", name="Rotate").click()
    page.get_by_label("The present secret ends").select_option(label="After an hour")
    page.get_by_role("button", name="Make a new secret").click()
    tokens.append(page.locator("#secret").inner_text())
    assert len(set(tokens)) == 2
    for token in tokens:
        headers = {"Authorization": f"Bearer {token}"}
        assert page.request.get("/v1/models", headers=headers).status == 200
    page.get_by_role("link", name="I have kept it").click()
    expect(page.get_by_text("Generation 2")).to_be_visible()
    assert tokens[1] not in page.content()


def test_opening_the_other_tenants_objects_gives_404(log_in: LogIn, house: House) -> None:
    with tenant_scope(house.b.context):
        key = ApiKey(
            tenant_id=house.b.id,
            user=house.b.owner.user,
            name="theirs",
            public_id="theirs0123456789",
            secret_hmac=b"x",
            pepper_version=1,
            scopes=["inference"],
        )
        key.save(force_insert=True)
        quota = Quota.objects.get(user=None, api_key=None)
        member = Membership.objects.get(user=house.b.viewer.user)
    page = log_in("owner")
    paths = [
        f"/admin/tenants/apikey/{key.pk}/",
        f"/admin/tenants/apikey/{key.pk}/revoke/",
        f"/admin/tenants/quota/{quota.pk}/",
        f"/admin/tenants/quota/{quota.pk}/edit/",
        f"/admin/tenants/membership/{member.pk}/",
        f"/admin/tenants/membership/{member.pk}/role/",
        f"/admin/tenants/membership/{member.pk}/remove/",
    ]
    assert {path: page.request.get(path).status for path in paths} == dict.fromkeys(paths, 404)


def test_member_of_two_tenants_picks_one_and_can_change(log_in: LogIn, house: House) -> None:
    page = log_in("both")
    expect(page.get_by_role("heading", level=1, name="My tenants")).to_be_visible()
    assert page.request.get("/admin/tenants/apikey/").status == 403
    for organisation in (house.a, house.b):
        page.goto("/admin/memberships/")
        card = page.locator("form.fh-card").filter(has_text=organisation.tenant.name)
        card.get_by_role("button", name="Work here").click()
        expect(page.locator(".fh-switcher summary")).to_contain_text(organisation.tenant.name)


def test_administrator_enters_a_tenant_with_a_reason_and_leaves(
    log_in: LogIn, house: House
) -> None:
    page = log_in("system")
    page.goto(f"/admin/tenants/tenant/{house.a.id}/")
    page.get_by_role("link", name="Enter tenant").click()
    page.get_by_label("Reason").fill("quota question 4711")
    page.get_by_role("button", name="Enter").click()
    expect(page.locator(".fh-banner")).to_contain_text(house.a.tenant.name)
    assert "Quotas" in menu_of(page)
    page.get_by_role("button", name="Leave").click()
    expect(page.locator(".fh-banner")).to_have_count(0)
    assert menu_of(page) == MENUS["system"]
    auditor = log_in("auditor")
    auditor.goto("/admin/audit/auditevent/?action=tenant.enter")
    auditor.locator(".fh-table tbody tr", has_text="tenant.enter").first.get_by_role("link").click()
    expect(auditor.get_by_text("quota question 4711")).to_be_visible()


NOT_CHINESE = re.compile(r"[A-Za-z]{3,}")
# Names, units and what users typed stay as they are.
KEPT = re.compile(
    r"Freehold|https://dify\.example\.com|Dify|ADMIN_API_KEY|"
    r"OpenAI|English|System Administrator|API|UTC|Ctrl|Enter|Owner|Olive|GPU|SHA|"
    r"“model”|Tenant-A\S*|tenant-a\S*|\S+@\S+|fake\S*|"
    r"fh_\S+|worker-\S+|Till|Short-lived|Playground|till|req-\S+|\S*-chat"
)


@pytest.mark.parametrize(
    ("role", "pages"),
    [
        (
            "owner",
            [
                "/admin/",
                "/admin/tenants/apikey/",
                "/admin/tenants/apikey/add/",
                "/admin/tenants/quota/",
                "/admin/tenants/quota/add/",
                "/admin/tenants/usagebucket/",
                "/admin/tenants/membership/",
                "/admin/tenants/membership/add/",
                "/admin/inference/job/",
                "/admin/knowledge/connection/",
                "/admin/knowledge/connection/add/",
                "/admin/playground/",
                "/admin/memberships/",
                "/admin/password_change/",
                "/admin/no-such-page/",
            ],
        ),
        ("system", ["/admin/tenants/tenant/add/", "/admin/tenants/user/add/"]),
    ],
)
def test_chinese_pages_hold_no_english(role: str, pages: list[str], log_in: LogIn) -> None:
    page = log_in(role, "zh-hans")
    left = {}
    for path in pages:
        page.goto(path)
        page.locator(".material-symbols-outlined").evaluate_all(
            "all => all.forEach(i => i.remove())"
        )
        page.locator("select").evaluate_all("all => all.forEach(i => i.remove())")
        words = NOT_CHINESE.findall(KEPT.sub("", page.locator("body").inner_text()))
        if words:
            left[path] = words
    assert left == {}


@pytest.mark.parametrize("role", ["system", "auditor"])
def test_chinese_lists_have_chinese_headings(role: str, log_in: LogIn) -> None:
    page = log_in(role, "zh-hans")
    left = {}
    for title in MENUS[role]:
        page.goto(PAGES[title])
        page.locator(".material-symbols-outlined").evaluate_all(
            "all => all.forEach(i => i.remove())"
        )
        headings = page.locator("h1, thead th, .fh-menu a, .fh-lead, .fh-filters label, .fh-number")
        words = NOT_CHINESE.findall(KEPT.sub("", " ".join(headings.all_inner_texts())))
        if words:
            left[title] = words
    assert left == {}
