"""Apps and their versions: made, drafted, published, rolled back, deleted, and what is refused."""

from typing import Any
from uuid import uuid4

import pytest

from knowledge.applications import selectors, services
from knowledge.applications.template import fill, places_of
from knowledge.models import App, AppVersion
from knowledge.services import create_knowledge_base, delete_knowledge_base
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation, api_key, unique
from tests.knowledge.apps.support import GROUNDED, make_app


def version_numbers(tenant: Organisation, app: App) -> list[int]:
    with tenant_scope(tenant.context):
        return [version.number for version in selectors.versions(app)]


def test_create_app_is_a_draft_that_nobody_gets(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model, published=False)
    assert (app.latest, app.published) == (1, 0)
    with tenant_scope(tenant_a.context), pytest.raises(NotFound):
        selectors.published_version(app)


def test_edit_app_adds_versions_and_publishing_rolls_back(
    tenant_a: Organisation, model: str
) -> None:
    context = tenant_a.developer.context
    app = make_app(tenant_a, model, prompt="First: {{query}}")
    document = {"model": model, "prompt": "Second: {{query}}"}
    draft = services.add_version(context=context, app_id=app.pk, spec=document, note="shorter")
    assert (draft.number, draft.note) == (2, "shorter")
    with tenant_scope(tenant_a.context):
        assert selectors.published_version(selectors.get_app(app.slug)).number == 1
    assert services.publish_app(context=context, app_id=app.pk).published == 2
    assert services.publish_app(context=context, app_id=app.pk, number=1).published == 1
    assert version_numbers(tenant_a, app) == [2, 1]
    with tenant_scope(tenant_a.context):
        lines = list(selectors.diff(app, 1, 2))
    assert '-  "prompt": "First: {{query}}"' in lines
    assert '+  "prompt": "Second: {{query}}"' in lines


def test_add_version_that_says_the_same_adds_none(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    same = {"model": model, "prompt": "{{query}}", "history": 6}
    version = services.add_version(context=tenant_a.context, app_id=app.pk, spec=same)
    assert version.number == 1
    assert version_numbers(tenant_a, app) == [1]


def test_change_version_is_refused_by_the_database(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    with (
        pytest.raises(Exception, match="permission denied"),
        tenant_scope(tenant_a.context),
    ):
        AppVersion.objects.filter(app_id=app.pk).update(note="other")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": "No place"}, "prompt"),
        ({"prompt": "{{query}} {{unknown}}"}, "prompt"),
        ({"prompt": "{{context}} {{query}}"}, "prompt"),
        ({"prompt": "{{query}}\0"}, "prompt"),
        ({"model": "nobody-serves-this"}, "model"),
        ({"inputs": [{"name": "query"}]}, "inputs"),
        ({"inputs": [{"name": "a"}, {"name": "a"}]}, "inputs"),
        ({"inputs": [{"name": "a", "type": "choice"}]}, "inputs"),
        ({"inputs": [{"name": "a", "type": "date"}]}, "spec"),
        ({"sampling": {"temperature": 9}}, "temperature"),
        ({"schema": {"type": "no type"}}, "response_format"),
        ({"colour": "red"}, "spec"),
        ({"knowledge": [{"knowledge_base_id": str(uuid4())}], "prompt": GROUNDED}, "knowledge"),
        ({"history": 51}, "history"),
    ],
)
def test_create_app_with_a_wrong_spec_names_the_field(
    tenant_a: Organisation, model: str, wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        make_app(tenant_a, **({"model": model} | wrong))
    assert refusal.value.param is not None
    assert param in refusal.value.param
    with tenant_scope(tenant_a.context):
        assert not App.objects.exists()


def test_create_app_twice_under_one_slug_is_refused(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    with pytest.raises(Conflict) as refusal:
        services.create_app(
            context=tenant_a.context, slug=app.slug, name="other", spec={"model": model}
        )
    assert refusal.value.error_code == "app_slug_taken"


def test_create_app_under_another_tenants_slug_is_allowed(
    tenant_a: Organisation, tenant_b: Organisation, model: str
) -> None:
    app = make_app(tenant_a, model)
    other = services.create_app(
        context=tenant_b.context, slug=app.slug, name="ours", spec={"model": model}
    )
    with tenant_scope(tenant_b.context):
        assert selectors.get_app(app.slug).pk == other.pk
        with pytest.raises(NotFound):
            selectors.get_app(app.pk)


def test_create_app_with_an_id_as_slug_is_refused(tenant_a: Organisation, model: str) -> None:
    with pytest.raises(Invalid) as refusal:
        services.create_app(
            context=tenant_a.context, slug=str(uuid4()), name="x", spec={"model": model}
        )
    assert refusal.value.param == "slug"


def test_publish_by_a_viewer_is_refused(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model, published=False)
    with pytest.raises(Forbidden):
        services.publish_app(context=tenant_a.viewer.context, app_id=app.pk)


def test_delete_app_while_published_is_refused(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    with pytest.raises(Conflict) as refusal:
        services.delete_app(context=tenant_a.context, app_id=app.pk)
    assert refusal.value.error_code == "app_published"
    services.withdraw_app(context=tenant_a.context, app_id=app.pk)
    services.delete_app(context=tenant_a.context, app_id=app.pk)
    with tenant_scope(tenant_a.context):
        assert not AppVersion.objects.filter(app_id=app.pk).exists()


def test_delete_knowledge_base_of_a_published_app_is_refused_by_name(
    tenant_a: Organisation, model: str
) -> None:
    base = create_knowledge_base(context=tenant_a.context, name="rules", embedding_model="")
    app = make_app(tenant_a, model, base=base)
    with pytest.raises(Conflict) as refusal:
        delete_knowledge_base(context=tenant_a.context, knowledge_base_id=base.pk)
    assert app.name in refusal.value.message
    services.withdraw_app(context=tenant_a.context, app_id=app.pk)
    delete_knowledge_base(context=tenant_a.context, knowledge_base_id=base.pk)
    with pytest.raises(Invalid) as gone:
        services.publish_app(context=tenant_a.context, app_id=app.pk)
    assert gone.value.param == "knowledge"


def test_edit_app_allows_only_keys_of_the_tenant(
    tenant_a: Organisation, tenant_b: Organisation, model: str
) -> None:
    app = make_app(tenant_a, model)
    own, other = api_key(tenant_a).api_key, api_key(tenant_b).api_key
    edited = services.edit_app(context=tenant_a.context, app_id=app.pk, allowed_keys=[own.pk])
    assert edited.allowed_keys == [own.pk]
    with pytest.raises(Invalid):
        services.edit_app(context=tenant_a.context, app_id=app.pk, allowed_keys=[other.pk])


def test_fill_reads_no_place_in_what_is_filled_in() -> None:
    values = {"query": "{{context}} {{secret}}", "context": "{{query}}"}
    assert fill("A {{ context }} B {{query}}", values) == "A {{query}} B {{context}} {{secret}}"
    assert places_of("{{ a }}{{b_1}}{{c d}}{e}") == {"a", "b_1"}


def test_name_app_by_slug_and_by_id(tenant_a: Organisation, model: str) -> None:
    app = make_app(tenant_a, model)
    with tenant_scope(tenant_a.context):
        assert selectors.get_app(app.slug) == selectors.get_app(str(app.pk)) == app
        with pytest.raises(NotFound):
            selectors.get_app(unique("none"))
