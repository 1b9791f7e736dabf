"""Without a single filter by tenant, the ORM still shows one tenant alone."""

from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.db import models
from django.db.utils import ProgrammingError

from portal.core.database_roles import database_roles
from portal.core.tenancy import role_scope, tenant_scope
from portal.core.tenancy.models import TenantModel
from tenants.models import ApiKeyUse, Tenant
from tests.isolation.rows import Populated

# What portal_app may not read: its rows are the data plane's business, or the platform's.
UNREADABLE = {"inference.JobPayload", "inference.FairShare", "inference.RouteOverride"}

MODELS: list[type[models.Model]] = [
    Tenant,
    *(
        model
        for model in apps.get_models()
        if issubclass(model, TenantModel)
        and model._meta.app_label != "audit"
        and model._meta.label not in UNREADABLE
    ),
]
TRAIL: list[type[models.Model]] = [
    model for model in apps.get_models() if model._meta.app_label == "audit"
]


def _own_tenants(model: type[models.Model]) -> set[UUID]:
    column = "id" if model is Tenant else "tenant_id"
    return set(model._base_manager.values_list(column, flat=True))


def _key(populated: Populated, model: type[models.Model]) -> Any:
    key = populated.keys[model._meta.db_table][1]
    return (populated.id, key, 1) if model is ApiKeyUse else key


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m._meta.label)
def test_list_without_filter_shows_own_rows_alone(
    full_a: Populated, full_b: Populated, model: type[models.Model]
) -> None:
    with tenant_scope(full_a.organisation.context):
        assert _own_tenants(model) == {full_a.id}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m._meta.label)
def test_get_another_tenants_row_by_id_finds_nothing(
    full_a: Populated, full_b: Populated, model: type[models.Model]
) -> None:
    other: dict[str, Any] = {"pk": _key(full_b, model)}
    with tenant_scope(full_a.organisation.context):
        rows = model._base_manager
        assert rows.filter(pk=_key(full_a, model)).exists()
        assert not rows.filter(**other).exists()
        assert rows.filter(**other).count() == 0
        assert rows.in_bulk([other["pk"]]) == {}
        with pytest.raises(model.DoesNotExist):  # type: ignore[attr-defined]
            rows.get(**other)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m._meta.label)
def test_count_as_one_tenant_does_not_count_the_others(
    full_a: Populated, full_b: Populated, model: type[models.Model]
) -> None:
    with tenant_scope(full_a.organisation.context):
        own = model._base_manager.count()
        column = "pk" if model is Tenant else "tenant_id"
        assert own == model._base_manager.filter(**{column: full_a.id}).count()


@pytest.mark.parametrize("model", TRAIL, ids=lambda m: m._meta.label)
def test_read_trail_without_filter_shows_own_rows_alone(
    full_a: Populated, full_b: Populated, model: type[models.Model]
) -> None:
    columns = {field.attname for field in model._meta.concrete_fields}
    with role_scope(full_a.organisation.auditor.context, database_roles().audit_reader):
        rows = model._base_manager
        assert rows.exists()
        if "tenant_id" in columns:
            assert set(rows.values_list("tenant_id", flat=True)) == {full_a.id}
        else:
            theirs = [str(key) for _, key in full_b.keys.values()]
            assert not rows.filter(object_pk__in=theirs).exists()


@pytest.mark.parametrize("label", sorted(UNREADABLE))
def test_read_table_of_the_data_plane_is_refused(full_a: Populated, label: str) -> None:
    model = apps.get_model(label)
    with pytest.raises(ProgrammingError, match="permission denied"):
        with tenant_scope(full_a.organisation.context):
            model._base_manager.count()
