"""Every route of both planes, and what each may show: a route that is not here fails the run."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from django.urls import URLPattern, URLResolver, get_resolver


class Kind(Enum):
    """What a route shows.

    ``OBJECT``: one row of one tenant, by the id in the path. ``LISTING``: rows or counts of the
    caller's own tenant. ``PLATFORM``: the platform's own objects, the same for every tenant.
    ``OPEN``: nobody's rows.
    """

    OBJECT = auto()
    LISTING = auto()
    PLATFORM = auto()
    OPEN = auto()


@dataclass(frozen=True, slots=True)
class Shows:
    """The class of a route; ``table`` holds the object that the path's id names."""

    kind: Kind
    table: str = ""


def _object(table: str) -> Shows:
    return Shows(Kind.OBJECT, table)


LISTING, PLATFORM, OPEN = Shows(Kind.LISTING), Shows(Kind.PLATFORM), Shows(Kind.OPEN)
TENANT, KEY = _object("tenants_tenant"), _object("tenants_apikey")
MEMBER, QUOTA = _object("tenants_membership"), _object("tenants_quota")
JOB, EVENT, USER = _object("inference_job"), _object("audit_event"), _object("tenants_user")
OVERRIDE = _object("inference_routeoverride")

CONTROL_PLANE: dict[str, Shows] = {
    "": OPEN,
    "admin/": LISTING,
    "admin/login/": OPEN,
    "admin/logout/": OPEN,
    "admin/password_change/": OPEN,
    "admin/password_change/done/": OPEN,
    "admin/jsi18n/": OPEN,
    "admin/memberships/": LISTING,
    "admin/playground/": LISTING,
    "admin/playground/key": LISTING,
    "admin/tenant/choose/": LISTING,
    "admin/tenant/leave/": OPEN,
    "admin/(?P<url>.*)$": OPEN,
    "admin/audit/auditevent/": LISTING,
    "admin/audit/auditevent/<uuid:object_id>/": EVENT,
    "admin/tenants/apikey/": LISTING,
    "admin/tenants/apikey/add/": LISTING,
    "admin/tenants/apikey/<uuid:object_id>/": KEY,
    "admin/tenants/apikey/<uuid:object_id>/networks/": KEY,
    "admin/tenants/apikey/<uuid:object_id>/rotate/": KEY,
    "admin/tenants/apikey/<uuid:object_id>/revoke/": KEY,
    "admin/tenants/membership/": LISTING,
    "admin/tenants/membership/add/": LISTING,
    "admin/tenants/membership/<uuid:object_id>/": MEMBER,
    "admin/tenants/membership/<uuid:object_id>/role/": MEMBER,
    "admin/tenants/membership/<uuid:object_id>/remove/": MEMBER,
    "admin/tenants/quota/": LISTING,
    "admin/tenants/quota/add/": LISTING,
    "admin/tenants/quota/<uuid:object_id>/": QUOTA,
    "admin/tenants/quota/<uuid:object_id>/edit/": QUOTA,
    "admin/tenants/quota/<uuid:object_id>/delete/": QUOTA,
    "admin/tenants/tenant/": LISTING,
    "admin/tenants/tenant/add/": LISTING,
    "admin/tenants/tenant/<uuid:object_id>/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/enter/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/edit/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/suspend/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/resume/": TENANT,
    "admin/tenants/usagebucket/": LISTING,
    "admin/tenants/usagebucket/export/": LISTING,
    "admin/tenants/user/": LISTING,
    "admin/tenants/user/add/": LISTING,
    "admin/tenants/user/<uuid:object_id>/": USER,
    "admin/tenants/user/<uuid:object_id>/role/": USER,
    "admin/tenants/user/<uuid:object_id>/deactivate/": USER,
    "admin/tenants/user/<uuid:object_id>/reactivate/": USER,
    "admin/inference/job/": LISTING,
    "admin/inference/job/<uuid:object_id>/": JOB,
    "admin/inference/deployment/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/enable/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/disable/": PLATFORM,
    "admin/inference/worker/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/": PLATFORM,
    "admin/inference/route/": PLATFORM,
    "admin/inference/route/add/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/edit/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/assign/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/withdraw/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/delete/": PLATFORM,
    "admin/inference/model/": PLATFORM,
    "admin/inference/model/<uuid:object_id>/": PLATFORM,
    "api/v1/tenants": LISTING,
    "api/v1/tenants/<str:tenant_id>": TENANT,
    "api/v1/tenants/<str:tenant_id>/suspend": TENANT,
    "api/v1/tenants/<str:tenant_id>/resume": TENANT,
    "api/v1/members": LISTING,
    "api/v1/members/<str:member_id>": MEMBER,
    "api/v1/keys": LISTING,
    "api/v1/keys/<str:key_id>": KEY,
    "api/v1/keys/<str:key_id>/rotate": KEY,
    "api/v1/keys/<str:key_id>/revoke": KEY,
    "api/v1/quotas": LISTING,
    "api/v1/quotas/<str:quota_id>": QUOTA,
    "api/v1/usage": LISTING,
    "api/v1/jobs": LISTING,
    "api/v1/jobs/<str:job_id>": JOB,
    "api/v1/models": PLATFORM,
    "api/v1/deployments": PLATFORM,
    "api/v1/routes": PLATFORM,
    "api/v1/routes/<str:route_id>": PLATFORM,
    "api/v1/routes/<str:route_id>/overrides": PLATFORM,
    "api/v1/route-overrides/<str:override_id>": OVERRIDE,
    "api/v1/audit/events": LISTING,
    "api/v1/audit/events/<str:event_id>": EVENT,
    "api/v1/openapi.yaml": OPEN,
    "api/v1/docs": OPEN,
    "i18n/setlang/": OPEN,
}

# The data plane names no tenant's object in any path: the key alone says whose call it is.
DATA_PLANE: dict[str, Shows] = {
    "/health/live": OPEN,
    "/health/ready": PLATFORM,
    "/v1": OPEN,
    "/v1/chat/completions": LISTING,
    "/v1/models": PLATFORM,
    "/v1/models/{model}": PLATFORM,
    "/v1/{path:path}": OPEN,
}


def control_plane_routes() -> list[str]:
    """The full pattern of every route of the URL configuration."""
    return sorted(set(_walk(get_resolver(), "")))


def _walk(resolver: URLResolver, prefix: str) -> Iterator[str]:
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield path
        else:
            yield from _walk(entry, path)
