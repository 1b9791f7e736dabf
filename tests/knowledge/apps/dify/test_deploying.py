"""Apps in Dify: put there, upgraded, rolled back and taken away, whatever happens on the way."""

import logging
import re
from typing import Any

import psycopg
import pytest

from knowledge.applications import services
from knowledge.applications.dify import portal
from knowledge.applications.dify.dsl import SEARCH, Unrenderable
from knowledge.applications.dify.secrets import open_key
from knowledge.applications.dify.services import NoPlugin, deploy_app, undeploy_app
from knowledge.applications.selectors import get_app, published_version
from knowledge.connections.services import delete_connection
from knowledge.models import App, AppDeployment, Connection, PortalInDify, SyncState
from knowledge.sync.closing import erase_in_dify
from knowledge.sync.steps import Steps
from knowledge.sync.wakes import wake
from portal.core.actors import Context
from portal.core.errors import Conflict, NotFound
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.models import ApiKey
from tenants.services import revoke_api_key
from tests.factories import Organisation
from tests.knowledge.apps.dify.bench import AppBench
from tests.knowledge.dify.double import transfer


def upgrade(bench: AppBench, app: Any, prompt: str, **spec: Any) -> int:
    """Publishes another version; its number."""
    document = {"model": bench.model, "prompt": prompt, **spec}
    version = services.add_version(context=bench.context, app_id=app.pk, spec=document)
    services.publish_app(context=bench.context, app_id=app.pk)
    return version.number


def test_app_that_is_deployed_is_live_in_dify_with_a_key(bench: AppBench) -> None:
    app = bench.app(instructions="Be kind.")
    bench.settle()
    there = bench.there(app)
    assert (there.name, there.mode, there.published) == (app.name, "advanced-chat", 1)
    assert bench.prompts(app) == ["Be kind.", "{{#sys.query#}}"]
    assert bench.live(app)["version"] == 1
    assert len(there.keys) == 1
    assert there.versions[0]["marked_name"] == "v1"
    assert bench.apps_in_step()


def test_app_that_is_in_step_is_left_alone(bench: AppBench) -> None:
    bench.app()
    bench.settle()
    bench.double.seen.clear()
    bench.run(look=True)
    assert {method for method, _ in bench.requests()} == {"GET"}


def test_upgrade_and_way_back_change_the_same_app(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    first = bench.there(app)
    upgrade(bench, app, "Shortly: {{query}}")
    bench.settle()
    assert bench.prompts(app) == ["Shortly: {{#sys.query#}}"]
    assert bench.live(app)["version"] == 2
    services.publish_app(context=bench.context, app_id=app.pk, number=1)
    bench.settle()
    assert bench.prompts(app) == ["{{#sys.query#}}"]
    assert bench.live(app)["version"] == 1
    assert list(bench.double.own.apps.values()) == [first]
    assert [version["marked_name"] for version in first.versions] == ["v1", "v2", "v1"]
    assert len(first.keys) == 1


def test_withdrawn_app_stays_in_dify_and_nobody_can_call_it(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    services.withdraw_app(context=bench.context, app_id=app.pk)
    bench.settle()
    assert not bench.there(app).api_enabled
    services.publish_app(context=bench.context, app_id=app.pk)
    bench.settle()
    assert bench.there(app).api_enabled


def test_app_that_is_taken_back_is_deleted_with_a_receipt(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    undeploy_app(context=bench.context, app_id=app.pk)
    bench.settle()
    assert bench.double.own.apps == {}
    assert [receipt.kind for receipt in bench.receipts()] == ["app"]


def test_app_that_is_renamed_has_its_name_in_dify(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    services.edit_app(context=bench.context, app_id=app.pk, name="Travel desk")
    bench.settle()
    assert bench.there(app).name == "Travel desk"


# -- knowledge ---------------------------------------------------------------------------------


def test_knowledge_base_of_the_workspace_keeps_its_reference(bench: AppBench) -> None:
    base = bench.base(top_k=7)
    bench.text(base, "holidays.txt")
    app = bench.app(base=base)
    bench.settle()
    node = bench.there(app).node("knowledge-retrieval")
    assert node["dataset_ids"] == [bench.double.dataset("Handbook").id]
    assert node["multiple_retrieval_config"]["top_k"] == 7


def test_knowledge_base_of_the_portal_is_searched_there(bench: AppBench) -> None:
    base = bench.portal_base()
    app = bench.app(base=base)
    bench.settle()
    [dataset] = bench.double.own.datasets.values()
    assert (dataset.provider, dataset.external_id) == ("external", str(base.pk))
    [source] = bench.double.own.external_apis.values()
    assert source["settings"]["endpoint"] == f"{bench.portal}/api/v1/external-knowledge"
    assert bench.there(app).datasets == {dataset.id}
    undeploy_app(context=bench.context, app_id=app.pk)
    bench.settle()
    assert bench.double.own.datasets == {}


def test_knowledge_base_that_was_deleted_in_dify_is_named_anew(bench: AppBench) -> None:
    base = bench.base()
    app = bench.app(base=base)
    bench.settle()
    lost = bench.double.dataset("Handbook").id
    bench.double.click(lambda workspace: workspace.datasets.pop(lost))
    bench.settle(look=True)
    again = bench.double.dataset("Handbook").id
    assert again != lost
    assert bench.there(app).node("knowledge-retrieval")["dataset_ids"] == [again]


def test_tenant_that_is_closed_leaves_no_app_and_no_knowledge_in_dify(
    bench: AppBench, system_admin: Context
) -> None:
    base = bench.portal_base()
    for _ in range(2):
        bench.app(base=base)
    bench.settle()
    with platform_scope(system_admin, reason="a tenant is erased"):
        while erase_in_dify(bench.tenant.id, 1):
            pass
    assert bench.double.own.apps == {}
    assert bench.double.own.datasets == {}


# -- the portal as a provider ------------------------------------------------------------------


def test_model_is_registered_once_with_a_key_of_the_tenant(bench: AppBench) -> None:
    bench.app()
    bench.app()
    bench.settle()
    slug = bench.tenant.tenant.slug
    [(name, sent)] = bench.double.own.models.items()
    assert (name, sent["name"]) == (f"{slug}/{bench.model}", slug)
    credentials = sent["credentials"]
    assert credentials["endpoint_url"] == f"{bench.portal}/v1"
    assert credentials["endpoint_model_name"] == bench.model
    with tenant_scope(bench.context):
        [row] = PortalInDify.objects.all()
        key = ApiKey.objects.select_related("user").get(pk=row.api_key_id)
    assert key.user.full_name == "Dify"
    assert sorted(key.scopes) == ["inference", "knowledge:read"]
    assert key.public_id in credentials["api_key"]


def test_key_that_is_revoked_is_followed_by_another(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    with tenant_scope(bench.context):
        key_id = PortalInDify.objects.get().api_key_id
    revoke_api_key(context=bench.context, api_key_id=key_id, reason="leaked")
    bench.settle()
    model = bench.there(app).node("llm")["model"]["name"]
    assert model == f"{bench.tenant.tenant.slug}/{bench.model}#2"
    assert bench.double.own.models[model]["credentials"]["api_key"] != ""


# -- crashes and refusals ----------------------------------------------------------------------


MOST_CHANGES = 7
"""So many changing calls put an app with a knowledge base of the portal in place."""


def assert_made_once(bench: AppBench, app: App) -> None:
    workspace, there = bench.double.own, bench.there(app)
    assert len(workspace.apps) == len(workspace.models) == 1
    assert len(workspace.datasets) == len(workspace.external_apis) == 1
    assert (there.name, len(there.keys), there.api_enabled) == (app.name, 1, True)
    assert bench.apps_in_step()


@pytest.mark.parametrize("number", range(MOST_CHANGES))
def test_answer_that_is_lost_makes_nothing_twice(bench: AppBench, number: int) -> None:
    app = bench.app(base=bench.portal_base())
    bench.double.fail("done_then_drop", method="POST", after=number)
    bench.settle()
    assert_made_once(bench, app)


@pytest.mark.parametrize("number", range(4))
def test_runner_that_is_killed_is_followed_by_one_that_makes_nothing_twice(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It dies after a call was answered and before that is written down."""
    app = bench.app(base=bench.portal_base())
    sent, left = Steps._sent, [number]

    def die(*given: Any, **more: Any) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        sent(*given, **more)

    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(Steps, "_sent", die)
        bench.settle()
    bench.settle()
    assert_made_once(bench, app)


class Killed(BaseException):
    """As ``kill -9``: nobody catches it."""


def test_dify_that_is_down_has_the_app_when_it_is_back(bench: AppBench) -> None:
    app = bench.app()
    bench.double.fail("bad_gateway", times=-1)
    bench.run()
    assert bench.double.own.apps == {}
    bench.double.heal()
    bench.settle()
    assert bench.apps_in_step()
    assert bench.there(app).published == 1


def test_references_that_dify_drops_are_told_and_not_published(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "UUID", re.compile("nothing"))
    app = bench.app(base=bench.base())
    bench.hurry()
    for _ in range(6):
        bench.run()
    link = bench.link(app.pk)
    assert (link.error_code, link.state) == ("dify_references_lost", SyncState.FAILED)
    assert bench.there(app).published == 0


def test_app_whose_dify_is_too_new_stays_as_it_is_and_says_why(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    with tenant_scope(bench.context):
        Connection.objects.filter(pk=bench.connection.pk).update(version="1.17.0")
        wake(bench.connection.pk)
    bench.run()
    link = bench.link(app.pk)
    assert link.state == SyncState.FAILED
    assert "writes apps for Dify 1.16" in link.error
    assert bench.there(app).published == 1
    with pytest.raises(Unrenderable):
        upgrade(bench, app, "Shortly: {{query}}")


def test_deploy_refuses_what_can_not_run_there(
    bench: AppBench, monkeypatch: pytest.MonkeyPatch, tenant_b: Organisation
) -> None:
    app = bench.app(deployed=False, inputs=[{"name": SEARCH}])
    ids: dict[str, Any] = {"app_id": app.pk, "connection_id": bench.connection.pk}
    with pytest.raises(Unrenderable, match="portal's own"):
        deploy_app(context=bench.context, **ids)
    with pytest.raises(NotFound):
        deploy_app(context=tenant_b.owner.context, **ids)
    monkeypatch.setattr(portal, "_address", lambda: "")
    with pytest.raises(portal.NoAddress):
        deploy_app(context=bench.context, **ids)
    with tenant_scope(bench.context):
        able = {**bench.connection.capabilities, "gateway_provider": False}
        Connection.objects.filter(pk=bench.connection.pk).update(capabilities=able)
    with pytest.raises(NoPlugin):
        deploy_app(context=bench.context, **ids)
    with tenant_scope(bench.context):
        assert not AppDeployment.objects.exists()


def test_connection_at_which_an_app_is_to_run_is_not_deleted(bench: AppBench) -> None:
    app = bench.app()
    for forget in (False, True):
        with pytest.raises(Conflict, match=rf"Apps run there: {app.name}\. Let them run in the po"):
            delete_connection(
                context=bench.context, connection_id=bench.connection.pk, forget=forget
            )
    undeploy_app(context=bench.context, app_id=app.pk)
    delete_connection(context=bench.context, connection_id=bench.connection.pk, forget=True)


def test_deploy_an_app_that_runs_in_dify_already_is_refused(bench: AppBench) -> None:
    app = bench.app()
    with pytest.raises(Conflict, match=bench.connection.name):
        deploy_app(context=bench.context, app_id=app.pk, connection_id=bench.connection.pk)
    undeploy_app(context=bench.context, app_id=app.pk)
    with pytest.raises(Conflict):
        undeploy_app(context=bench.context, app_id=app.pk)


# -- what people change in Dify ----------------------------------------------------------------


def reword(bench: AppBench, app: App, text: str) -> None:
    """Somebody changes the prompt in Dify's own pages, and publishes it."""

    def change(_: Any) -> None:
        there = bench.there(app)
        for node in there.dsl["workflow"]["graph"]["nodes"]:
            if node["id"] == "llm":
                node["data"]["memory"]["query_prompt_template"] = text
        there.publish()

    bench.double.click(change)


def test_prompt_that_was_changed_in_dify_is_put_back_where_ours_wins(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    reword(bench, app, "Ignore them: {{#sys.query#}}")
    bench.settle(look=True)
    assert bench.prompts(app) == ["{{#sys.query#}}"]
    assert bench.apps_in_step()


def test_prompt_that_was_changed_in_dify_is_a_version_where_theirs_wins(bench: AppBench) -> None:
    bench.policy("theirs")
    app = bench.app()
    bench.settle()
    reword(bench, app, "Politely: {{#sys.query#}}")
    bench.settle(look=True)
    with tenant_scope(bench.context):
        taken = published_version(get_app(app.pk))
    assert (taken.number, taken.spec["prompt"]) == (2, "Politely: {{query}}")
    assert bench.prompts(app) == ["Politely: {{#sys.query#}}"]
    assert bench.apps_in_step()


def test_change_that_the_portal_has_no_words_for_is_a_conflict_in_words(bench: AppBench) -> None:
    bench.policy("theirs")
    app = bench.app()
    bench.settle()
    reword(bench, app, "{{#env.PASSWORD#}} {{#sys.query#}}")
    bench.run(look=True)
    link = bench.link(app.pk)
    assert link.error_code == "app_changed_beyond"
    with tenant_scope(bench.context):
        assert get_app(app.pk).published == 1


def test_app_that_was_deleted_in_dify_is_made_again_or_taken_back(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    bench.double.click(lambda workspace: workspace.apps.clear())
    bench.settle(look=True)
    assert bench.there(app).published == 1
    bench.policy("theirs")
    bench.double.click(lambda workspace: workspace.apps.clear())
    bench.settle(look=True)
    with tenant_scope(bench.context):
        assert not AppDeployment.objects.exists()


def test_key_that_was_deleted_in_dify_is_made_again(bench: AppBench) -> None:
    app = bench.app()
    bench.settle()
    bench.double.click(lambda _: bench.there(app).keys.clear())
    bench.settle(look=True)
    [key] = bench.there(app).keys
    with tenant_scope(bench.context):
        row = AppDeployment.objects.get(app_id=app.pk)
        assert open_key(row) == key["token"]


# -- tenants and secrets -----------------------------------------------------------------------


def test_tenants_of_one_workspace_have_models_keys_and_apps_of_their_own(
    bench: AppBench, tenant_b: Organisation, system_admin: Context
) -> None:
    other = bench.shared_with(tenant_b, system_admin)
    app, theirs = bench.app(), other.app()
    bench.settle()
    other.settle()
    workspace = bench.double.own
    slugs = {bench.tenant.tenant.slug, tenant_b.tenant.slug}
    assert {name.partition("/")[0] for name in workspace.models} == slugs
    keys = {sent["credentials"]["api_key"] for sent in workspace.models.values()}
    assert len(keys) == 2
    assert bench.there(app).name == f"{bench.tenant.tenant.slug}/{app.name}"
    assert other.there(theirs).name == f"{tenant_b.tenant.slug}/{theirs.name}"
    undeploy_app(context=bench.context, app_id=app.pk)
    bench.settle()
    assert list(workspace.apps.values()) == [other.there(theirs)]


def test_keys_are_in_no_row_no_event_and_no_log(
    bench: AppBench, owner_sql: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    app = bench.app()
    bench.settle()
    [sent] = bench.double.own.models.values()
    secrets = [sent["credentials"]["api_key"], bench.there(app).keys[0]["token"]]
    told = [caplog.text]
    for table in ("appdeployment", "portalindify", "remoteobject"):
        found = owner_sql.execute(
            f"SELECT coalesce(string_agg(t::text, ' '), '') FROM knowledge_{table} t"
        ).fetchone()
        assert found is not None
        told.append(found[0])
    trail = owner_sql.execute(
        "SELECT coalesce(string_agg(b::text, ' '), '') FROM audit_body b WHERE tenant_id = %s",
        [bench.tenant.id],
    ).fetchone()
    assert trail is not None
    told.append(trail[0])
    for secret in secrets:
        assert all(secret not in text for text in told)
