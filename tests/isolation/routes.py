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
QUOTA_DEFAULT = _object("tenants_quotadefault")
SERVICE_ACCOUNT = _object("tenants_serviceaccount")
JOB, EVENT, USER = _object("inference_job"), _object("audit_event"), _object("tenants_user")
EXPORT = _object("tenants_tenantexport")

FILE, BATCH = _object("inference_file"), _object("inference_batch")

CONNECTION = _object("knowledge_connection")
REMOTE_OBJECT = _object("knowledge_remoteobject")
WEBHOOK = _object("inference_webhookdelivery")
OVERRIDE = _object("inference_routeoverride")
APP = _object("knowledge_app")
TRIGGER, TRIGGER_RUN = _object("knowledge_trigger"), _object("knowledge_triggerrun")
BASE, DOCUMENT = _object("knowledge_knowledgebase"), _object("knowledge_document")
SOURCE = _object("knowledge_documentsource")

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
    "admin/tenants/serviceaccount/": LISTING,
    "admin/tenants/serviceaccount/add/": LISTING,
    "admin/tenants/serviceaccount/<uuid:object_id>/": SERVICE_ACCOUNT,
    "admin/tenants/serviceaccount/<uuid:object_id>/key/": SERVICE_ACCOUNT,
    "admin/tenants/serviceaccount/<uuid:object_id>/edit/": SERVICE_ACCOUNT,
    "admin/tenants/serviceaccount/<uuid:object_id>/disable/": SERVICE_ACCOUNT,
    "admin/tenants/serviceaccount/<uuid:object_id>/enable/": SERVICE_ACCOUNT,
    "admin/tenants/serviceaccount/<uuid:object_id>/retire/": SERVICE_ACCOUNT,
    "admin/tenants/quotadefault/": LISTING,
    "admin/tenants/quotadefault/add/": LISTING,
    "admin/tenants/quotadefault/<uuid:object_id>/": QUOTA_DEFAULT,
    "admin/tenants/quotadefault/<uuid:object_id>/edit/": QUOTA_DEFAULT,
    "admin/tenants/quotadefault/<uuid:object_id>/delete/": QUOTA_DEFAULT,
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
    "admin/tenants/tenant/<uuid:object_id>/close/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/reopen/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/export/": TENANT,
    "admin/tenants/tenant/<uuid:object_id>/certificate/": TENANT,
    "admin/tenants/tenantexport/": LISTING,
    "admin/tenants/tenantexport/add/": LISTING,
    "admin/tenants/tenantexport/<uuid:object_id>/": EXPORT,
    "admin/tenants/tenantexport/<uuid:object_id>/file/": EXPORT,
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
    "admin/inference/job/<uuid:object_id>/cancel/": JOB,
    "admin/inference/webhookdelivery/": LISTING,
    "admin/inference/webhookdelivery/add/": LISTING,
    "admin/inference/webhookdelivery/<uuid:object_id>/": WEBHOOK,
    "admin/inference/webhookdelivery/<uuid:object_id>/redeliver/": WEBHOOK,
    "admin/inference/webhooksecret/": LISTING,
    "admin/inference/webhooksecret/add/": LISTING,
    "admin/inference/batch/": LISTING,
    "admin/inference/batch/<uuid:object_id>/": BATCH,
    "admin/inference/batch/<uuid:object_id>/cancel/": BATCH,
    "admin/knowledge/connection/": LISTING,
    "admin/knowledge/connection/add/": LISTING,
    "admin/knowledge/connection/<uuid:object_id>/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/check/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/edit/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/share/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/licence/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/workspace/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/delete/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/sync/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/pause/": CONNECTION,
    "admin/knowledge/connection/<uuid:object_id>/resume/": CONNECTION,
    "admin/knowledge/remoteobject/": LISTING,
    "admin/knowledge/remoteobject/<uuid:object_id>/": REMOTE_OBJECT,
    "admin/knowledge/remoteobject/<uuid:object_id>/ours/": REMOTE_OBJECT,
    "admin/knowledge/remoteobject/<uuid:object_id>/theirs/": REMOTE_OBJECT,
    "admin/knowledge/deletionreceipt/": LISTING,
    "admin/inference/deployment/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/": PLATFORM,
    "admin/inference/deployment/add/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/live/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/edit/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/delete/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/load/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/resume/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/drain/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/unload/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/enable/": PLATFORM,
    "admin/inference/deployment/<uuid:object_id>/disable/": PLATFORM,
    "admin/inference/worker/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/load/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/resume/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/drain/": PLATFORM,
    "admin/inference/worker/<uuid:object_id>/unload/": PLATFORM,
    "admin/inference/route/": PLATFORM,
    "admin/inference/route/add/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/edit/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/assign/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/withdraw/": PLATFORM,
    "admin/inference/route/<uuid:object_id>/delete/": PLATFORM,
    "admin/inference/model/": PLATFORM,
    "admin/inference/model/add/": PLATFORM,
    "admin/inference/model/<uuid:object_id>/": PLATFORM,
    "admin/inference/model/<uuid:object_id>/quality-gate/": PLATFORM,
    "admin/inference/model/<uuid:object_id>/edit/": PLATFORM,
    "admin/inference/modelversion/": PLATFORM,
    "admin/inference/modelversion/<uuid:object_id>/": PLATFORM,
    "admin/inference/modelversion/<uuid:object_id>/live/": PLATFORM,
    "admin/inference/modelversion/<uuid:object_id>/price/": PLATFORM,
    "admin/inference/modelversion/<uuid:object_id>/verify/": PLATFORM,
    "admin/knowledge/app/": LISTING,
    "admin/knowledge/app/add/": LISTING,
    "admin/knowledge/app/<uuid:object_id>/rate/<uuid:message_id>/": APP,
    **{
        f"admin/knowledge/app/<uuid:object_id>/{page}": APP
        for page in (
            "",
            "try/",
            "draft/",
            "search/",
            "publish/",
            "edit/",
            "deploy/",
            "undeploy/",
            "withdraw/",
            "delete/",
        )
    },
    "admin/knowledge/knowledgebase/": LISTING,
    "admin/knowledge/knowledgebase/add/": LISTING,
    **{
        f"admin/knowledge/knowledgebase/<uuid:object_id>/{page}": BASE
        for page in (
            "",
            "ask/",
            "text/",
            "edit/",
            "delete/",
            "live/",
            "upload/",
            "folder/",
            "database/",
        )
    },
    "admin/knowledge/evaluation/": LISTING,
    "admin/knowledge/evaluation/add/": LISTING,
    "admin/knowledge/evaluation/<uuid:object_id>/": _object("knowledge_evaluation"),
    "admin/knowledge/trigger/": LISTING,
    "admin/knowledge/trigger/add/": LISTING,
    **{
        f"admin/knowledge/trigger/<uuid:object_id>/{page}": TRIGGER
        for page in ("", "edit/", "start/", "pause/", "resume/", "delete/")
    },
    "admin/knowledge/documentsource/": LISTING,
    **{
        f"admin/knowledge/documentsource/<uuid:object_id>/{page}": SOURCE
        for page in ("", "test/", "run/", "pause/", "resume/", "edit/", "database/", "delete/")
    },
    "admin/knowledge/document/": LISTING,
    **{
        f"admin/knowledge/document/<uuid:object_id>/{page}": DOCUMENT
        for page in ("", "disable/", "enable/", "archive/", "restore/", "index/", "delete/")
    },
    "api/v1/tenants": LISTING,
    "api/v1/tenants/<str:tenant_id>": TENANT,
    "api/v1/tenants/<str:tenant_id>/suspend": TENANT,
    "api/v1/tenants/<str:tenant_id>/resume": TENANT,
    "api/v1/tenants/<str:tenant_id>/close": TENANT,
    "api/v1/tenants/<str:tenant_id>/reopen": TENANT,
    "api/v1/tenants/<str:tenant_id>/closure": TENANT,
    "api/v1/tenants/<str:tenant_id>/export": TENANT,
    "api/v1/tenants/<str:tenant_id>/export/file": TENANT,
    "api/v1/tenants/<str:tenant_id>/certificate": TENANT,
    "api/v1/members": LISTING,
    "api/v1/members/<str:member_id>": MEMBER,
    "api/v1/users": LISTING,
    "api/v1/users/<str:user_id>": USER,
    "api/v1/users/<str:user_id>/deactivate": USER,
    "api/v1/users/<str:user_id>/reactivate": USER,
    "api/v1/users/<str:user_id>/reset-password": USER,
    "api/v1/service-accounts": LISTING,
    "api/v1/service-accounts/<str:account_id>": SERVICE_ACCOUNT,
    "api/v1/service-accounts/<str:account_id>/disable": SERVICE_ACCOUNT,
    "api/v1/service-accounts/<str:account_id>/enable": SERVICE_ACCOUNT,
    "api/v1/keys": LISTING,
    "api/v1/keys/<str:key_id>": KEY,
    "api/v1/keys/<str:key_id>/rotate": KEY,
    "api/v1/keys/<str:key_id>/revoke": KEY,
    "api/v1/quotas": LISTING,
    "api/v1/quotas/<str:quota_id>": QUOTA,
    "api/v1/quota-defaults": LISTING,
    "api/v1/quota-defaults/<str:default_id>": QUOTA_DEFAULT,
    "api/v1/usage": LISTING,
    "api/v1/jobs": LISTING,
    "api/v1/jobs/<str:job_id>": JOB,
    "api/v1/jobs/<str:job_id>/cancel": JOB,
    "api/v1/jobs/<str:job_id>/events": JOB,
    "api/v1/jobs/<str:job_id>/result": JOB,
    "api/v1/webhooks/deliveries": LISTING,
    "api/v1/webhooks/deliveries/<str:delivery_id>": WEBHOOK,
    "api/v1/webhooks/deliveries/<str:delivery_id>/redeliver": WEBHOOK,
    "api/v1/webhooks/secret": LISTING,
    "api/v1/webhooks/test": LISTING,
    "api/v1/batches": LISTING,
    "api/v1/batches/<str:batch_id>": BATCH,
    "api/v1/connections": LISTING,
    "api/v1/connections/<str:connection_id>": CONNECTION,
    "api/v1/connections/<str:connection_id>/check": CONNECTION,
    "api/v1/connections/<str:connection_id>/share": CONNECTION,
    "api/v1/connections/<str:connection_id>/licence": CONNECTION,
    "api/v1/connections/<str:connection_id>/workspaces": CONNECTION,
    "api/v1/models": PLATFORM,
    "api/v1/models/<str:model_id>": PLATFORM,
    "api/v1/model-versions": PLATFORM,
    "api/v1/model-versions/<str:version_id>": PLATFORM,
    "api/v1/model-versions/<str:version_id>/check": PLATFORM,
    "api/v1/model-versions/<str:version_id>/prices": PLATFORM,
    "api/v1/models/<str:model_id>/quality-gate": PLATFORM,
    "api/v1/deployments": PLATFORM,
    "api/v1/deployments/<str:deployment_id>": PLATFORM,
    "api/v1/deployments/<str:deployment_id>/enable": PLATFORM,
    "api/v1/deployments/<str:deployment_id>/disable": PLATFORM,
    "api/v1/deployments/<str:deployment_id>/workers": PLATFORM,
    "api/v1/deployments/<str:deployment_id>/orders": PLATFORM,
    "api/v1/workers/<str:worker_id>": PLATFORM,
    "api/v1/workers/<str:worker_id>/orders": PLATFORM,
    "api/v1/routes": PLATFORM,
    "api/v1/routes/<str:route_id>": PLATFORM,
    "api/v1/routes/<str:route_id>/overrides": PLATFORM,
    "api/v1/route-overrides/<str:override_id>": OVERRIDE,
    "api/v1/connections/<str:connection_id>/sync": CONNECTION,
    "api/v1/connections/<str:connection_id>/plan": CONNECTION,
    "api/v1/connections/<str:connection_id>/objects": CONNECTION,
    "api/v1/remote-objects/<str:object_id>/decide": REMOTE_OBJECT,
    "api/v1/deletion-receipts": LISTING,
    "api/v1/knowledge-bases": LISTING,
    "api/v1/knowledge-bases/<str:base_id>": BASE,
    "api/v1/knowledge-bases/<str:base_id>/retrieve": BASE,
    "api/v1/knowledge-bases/<str:base_id>/documents": BASE,
    "api/v1/knowledge-bases/<str:base_id>/files": BASE,
    "api/v1/knowledge-bases/<str:base_id>/sources": BASE,
    **{
        f"api/v1/sources/<str:source_id>{end}": SOURCE
        for end in ("", "/test", "/run", "/runs", "/refusals")
    },
    "api/v1/documents/<str:document_id>": DOCUMENT,
    "api/v1/documents/<str:document_id>/index": DOCUMENT,
    "api/v1/documents/<str:document_id>/versions": DOCUMENT,
    "api/v1/documents/<str:document_id>/text": DOCUMENT,
    "api/v1/documents/<str:document_id>/diff": DOCUMENT,
    "api/v1/external-knowledge/retrieval": LISTING,
    "api/v1/apps": LISTING,
    **{
        f"api/v1/apps/<str:app>{below}": APP
        for below in (
            "",
            "/versions",
            "/diff",
            "/publish",
            "/withdraw",
            "/deployment",
            "/usage",
            "/parameters",
            "/conversations",
            "/conversations/<str:conversation_id>",
            "/conversations/<str:conversation_id>/messages",
            "/messages/<str:message_id>/feedback",
        )
    },
    "api/v1/events": LISTING,
    "api/v1/scenarios": LISTING,
    "api/v1/evaluations": LISTING,
    "api/v1/evaluations/<str:evaluation_id>": _object("knowledge_evaluation"),
    "api/v1/triggers": LISTING,
    "api/v1/triggers/<str:trigger_id>": TRIGGER,
    "api/v1/triggers/<str:trigger_id>/start": TRIGGER,
    "api/v1/triggers/<str:trigger_id>/runs": TRIGGER,
    "api/v1/trigger-runs/<str:run_id>": TRIGGER_RUN,
    "api/v1/audit/events": LISTING,
    "api/v1/audit/events/<str:event_id>": EVENT,
    "api/v1/openapi.yaml": OPEN,
    "api/v1/docs": OPEN,
    "i18n/setlang/": OPEN,
}

# tests/knowledge/apps/test_gateway.py calls apps, conversations and messages of other callers.
APP_GATEWAY: dict[str, Shows] = {
    "/api/v1/apps/{app}/chat": APP,
    "/api/v1/apps/{app}/run": APP,
    "/api/v1/apps/{app}/messages/{message}/stop": APP,
}

# Files and batches are the only objects that a path of the data plane names:
# tests/inference/gateway/test_files.py and test_batches.py call each with another tenant's.
DATA_PLANE: dict[str, Shows] = {
    "/health/live": OPEN,
    "/health/ready": PLATFORM,
    "/metrics": PLATFORM,
    "/v1": OPEN,
    "/v1/chat/completions": LISTING,
    "/v1/completions": LISTING,
    "/v1/responses": LISTING,
    "/v1/embeddings": LISTING,
    "/v1/rerank": LISTING,
    "/v1/messages": LISTING,
    "/v1/messages/count_tokens": LISTING,
    "/v1/messages/{path:path}": OPEN,
    "/v1/models": PLATFORM,
    "/v1/models/{model}": PLATFORM,
    "/v1/files": LISTING,
    "/v1/files/{file}": FILE,
    "/v1/files/{file}/content": FILE,
    "/v1/batches": LISTING,
    "/v1/batches/{batch}": BATCH,
    "/v1/batches/{batch}/cancel": BATCH,
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
