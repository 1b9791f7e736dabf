"""The double's console, and its inner API."""

import json
from collections.abc import Callable
from typing import Any

import yaml

from tests.knowledge.dify.double import transfer
from tests.knowledge.dify.double.http import Answer, Refusal, Request, invalid, missing
from tests.knowledge.dify.double.knowledge import paged
from tests.knowledge.dify.double.outward import post
from tests.knowledge.dify.double.state import App, Dataset, Workspace, new_id, now
from tests.knowledge.dify.recorded import body_of

DSL_VERSION = (0, 7, 0)
PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
_PROVIDER_PATH = f"/workspaces/current/model-providers/{PROVIDER}/models/credentials"
_REQUIRED_CREDENTIALS = ("api_key", "endpoint_url", "mode", "context_size", "stream_mode_delimiter")
_SUCCESS = {"result": "success"}
_ID, _WORD = r"([0-9a-f-]{36})", r"([^/]+)"

Handler = Callable[["ConsoleRoutes", Workspace, Request], Answer]


class ConsoleRoutes:
    """What ``/console/api`` does to a workspace; it sees the others, too."""

    def __init__(self, workspaces: dict[str, Workspace]) -> None:
        self._workspaces = workspaces

    # -- the instance ------------------------------------------------------------------------

    def all_workspaces(self, workspace: Workspace, request: Request) -> Answer:
        shapes = [found.shape() for found in reversed(self._workspaces.values())]
        return Answer(200, paged(shapes, request))

    def dataset_keys(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, {"data": workspace.keys})

    def create_dataset_key(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, _new_key(workspace.keys, "dataset"))

    # -- knowledge bases ---------------------------------------------------------------------

    def use_check(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, {"is_using": bool(workspace.apps_with(request.ids[0]))})

    def related_apps(self, workspace: Workspace, request: Request) -> Answer:
        if request.ids[0] not in workspace.datasets:
            raise missing("Dataset not found.")
        template = body_of("console_app_dataset_related_apps")["data"][0]
        shapes = [
            {**template, "id": app.id, "name": app.name, "mode": app.mode}
            for app in workspace.apps_with(request.ids[0])
        ]
        return Answer(200, {"data": shapes, "total": len(shapes)})

    # -- apps --------------------------------------------------------------------------------

    def list_apps(self, workspace: Workspace, request: Request) -> Answer:
        wanted = request.query.get("name", "").lower()
        apps = [a.listed() for a in workspace.apps.values() if wanted in a.name.lower()]
        return Answer(200, paged(apps, request))

    def get_app(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, self._app(workspace, request).detail())

    def delete_app(self, workspace: Workspace, request: Request) -> Answer:
        app = workspace.apps.pop(self._app(workspace, request).id)
        workspace.gone_keys |= {key["token"] for key in app.keys}
        return Answer(204)

    def _app(self, workspace: Workspace, request: Request) -> App:
        app = workspace.apps.get(request.ids[0])
        if app is None:
            raise missing("App not found.", "app_not_found")
        return app

    def import_app(self, workspace: Workspace, request: Request) -> Answer:
        sent = request.json
        if sent.get("mode") != "yaml-content":
            raise invalid(f"Invalid import_mode: {sent.get('mode')}")
        try:
            dsl = yaml.safe_load(sent["yaml_content"])
        except yaml.YAMLError as fault:
            return _import_failed(f"Invalid YAML format: {fault}")
        if not isinstance(dsl, dict) or "app" not in dsl:
            return _import_failed("Missing app data in YAML content")
        version = tuple(int(n) for n in str(dsl.get("version", "0.1.0")).split("."))
        if version > DSL_VERSION:
            pending = new_id()
            workspace.imports[pending] = {"dsl": dsl, **sent}
            return Answer(202, _import_shape(dsl, id=pending, status="pending"))
        status = "completed" if version[:2] == DSL_VERSION[:2] else "completed-with-warnings"
        return self._install(workspace, dsl, sent, new_id(), status)

    def confirm_import(self, workspace: Workspace, request: Request) -> Answer:
        pending = workspace.imports.pop(request.ids[0], None)
        if pending is None:
            answer = _import_failed("Import information expired or does not exist")
            return Answer(400, {**answer.body, "id": request.ids[0]})
        return self._install(workspace, pending["dsl"], pending, request.ids[0], "completed")

    @staticmethod
    def _install(
        workspace: Workspace, dsl: dict[str, Any], sent: Any, import_id: str, status: str
    ) -> Answer:
        mode = dsl["app"]["mode"]
        app = workspace.apps.get(sent.get("app_id", ""))
        if sent.get("app_id") and app is None:
            return _import_failed("App not found")
        if app is not None and app.mode not in ("workflow", "advanced-chat"):
            return _import_failed("Only workflow or advanced chat apps can be overwritten")
        if app is None:
            app = App(sent.get("name") or dsl["app"]["name"], mode, dsl)
            workspace.apps[app.id] = app
        app.name = sent.get("name") or dsl["app"]["name"]
        app.dsl, app.updated_at = transfer.taken_in(dsl, workspace.id), now()
        return Answer(
            200, _import_shape(dsl, id=import_id, status=status, app_id=app.id, app_mode=mode)
        )

    def export_app(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        dsl = transfer.given_out(app.dsl, workspace.id)
        return Answer(200, {"data": yaml.safe_dump(dsl, allow_unicode=True)})

    def publish(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        if app.mode not in ("workflow", "advanced-chat"):
            raise missing("App not found.", "app_not_found")
        app.publish((request.json or {}).get("marked_name", ""))
        return Answer(200, {**_SUCCESS, "created_at": now()})

    def versions(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        if app.mode not in ("workflow", "advanced-chat"):
            raise missing("App not found.", "app_not_found")
        limit = int(request.query.get("limit", 10))
        items = app.history()
        more = limit < len(items)
        return Answer(200, {"items": items[:limit], "page": 1, "limit": limit, "has_more": more})

    def draft(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        if app.mode not in ("workflow", "advanced-chat"):
            raise missing("App not found.", "app_not_found")
        return Answer(200, app.draft())

    def model_config(self, workspace: Workspace, request: Request) -> Answer:
        app, sent = self._app(workspace, request), request.json
        if sent.get("model", {}).get("provider") != PROVIDER:
            raise invalid(f"model.provider is required and must be in ['{PROVIDER}']")
        app.dsl["model_config"], app.updated_at = sent, now()
        return Answer(200, _SUCCESS)

    def api_enable(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        app.api_enabled = bool(request.json["enable_api"])
        body: dict[str, Any] = body_of("console_app_api_enable")
        return Answer(200, body | {"id": app.id, "enable_api": app.api_enabled})

    def app_keys(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, {"data": self._app(workspace, request).keys})

    def create_app_key(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(201, _new_key(self._app(workspace, request).keys, "app"))

    def delete_app_key(self, workspace: Workspace, request: Request) -> Answer:
        app = self._app(workspace, request)
        kept = [key for key in app.keys if key["id"] != request.ids[1]]
        if len(kept) == len(app.keys):
            raise missing("API key not found")
        app.keys[:] = kept
        return Answer(204)

    # -- models ------------------------------------------------------------------------------

    def model_providers(self, workspace: Workspace, request: Request) -> Answer:
        body: dict[str, Any] = body_of("console_model_providers")
        return Answer(200, body if workspace.plugin else {"data": []})

    def models(self, workspace: Workspace, request: Request) -> Answer:
        template = body_of("console_models_llm")["data"][0]
        model = template["models"][0]
        template["models"] = [
            {**model, "model": name, "model_type": sent["model_type"]}
            for name, sent in workspace.models.items()
            if sent["model_type"] == request.ids[0]
        ]
        return Answer(200, {"data": [template] if template["models"] else []})

    def create_credential(self, workspace: Workspace, request: Request) -> Answer:
        sent = request.json
        for name in _REQUIRED_CREDENTIALS:
            if not sent["credentials"].get(name):
                raise invalid(f"Variable {name} is required")
        if sent["model"] in workspace.models:
            # The one that is there stays the current one, which no recorded call changes.
            raise invalid(f"Credential with name '{sent['name']}' already exists.")
        workspace.models[sent["model"]] = sent
        return Answer(201, _SUCCESS)

    def credential(self, workspace: Workspace, request: Request) -> Answer:
        body: dict[str, Any] = body_of("console_model_credential_get")
        sent = workspace.models.get(request.query.get("model", ""))
        if sent is None:
            return Answer(200, {**body, "credentials": {}, "available_credentials": []})
        key = sent["credentials"]["api_key"]
        told = body["credentials"] | sent["credentials"]
        told["api_key"] = f"{key[:6]}{'*' * 12}{key[-2:]}"
        body["available_credentials"][0]["credential_name"] = sent["name"]
        return Answer(200, body | {"credentials": told, "current_credential_name": sent["name"]})

    def set_default_model(self, workspace: Workspace, request: Request) -> Answer:
        for setting in request.json["model_settings"]:
            workspace.default_models[setting["model_type"]] = setting["model"]
        return Answer(200, _SUCCESS)

    # -- external knowledge ------------------------------------------------------------------

    def create_external_api(self, workspace: Workspace, request: Request) -> Answer:
        """Calls the source with an empty body, as Dify does, and refuses three statuses."""
        sent = request.json
        settings = sent.get("settings", {})
        if not settings.get("endpoint"):
            raise invalid("endpoint is required")
        status, _ = post(f"{settings['endpoint']}/retrieval", settings.get("api_key", ""), None)
        if status in (403, 404, 502):
            raise invalid(f"Forbidden: Authorization failed with api_key: {settings['api_key']}")
        made: dict[str, Any] = body_of("console_external_api_create_201")
        made |= {"id": new_id(), "tenant_id": workspace.id, "name": sent["name"]}
        made["settings"] = settings
        workspace.external_apis[made["id"]] = made
        return Answer(201, made)

    def external_apis(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, paged(list(workspace.external_apis.values()), request))

    def external_use_check(self, workspace: Workspace, request: Request) -> Answer:
        users = [d for d in workspace.datasets.values() if d.external_api == request.ids[0]]
        return Answer(200, {"is_using": bool(users), "count": len(users)})

    def create_external_dataset(self, workspace: Workspace, request: Request) -> Answer:
        sent = request.json
        if sent["external_knowledge_api_id"] not in workspace.external_apis:
            raise missing("External api template not found")
        if sent["name"] in {dataset.name for dataset in workspace.datasets.values()}:
            raise Refusal(409, "dataset_name_duplicate", "The dataset name already exists.")
        dataset = Dataset(
            sent["name"],
            sent.get("description", ""),
            "only_me",
            None,
            "external",
            sent["external_knowledge_api_id"],
            sent["external_knowledge_id"],
            external_retrieval=sent["external_retrieval_model"],
            retrieval=sent["external_retrieval_model"],
        )
        workspace.datasets[dataset.id] = dataset
        shape = dataset.shape(workspace)
        template = body_of("console_external_dataset_create_201")
        return Answer(
            201, {**shape, "updated_by": None, "permission_keys": template["permission_keys"]}
        )

    def external_hit_testing(self, workspace: Workspace, request: Request) -> Answer:
        dataset = workspace.datasets.get(request.ids[0])
        if dataset is None or dataset.external_api is None:
            raise missing("Dataset not found.")
        sent = request.json
        asked = sent["external_retrieval_model"]
        settings = workspace.external_apis[dataset.external_api]["settings"]
        body = {
            "retrieval_setting": {
                "top_k": asked["top_k"],
                "score_threshold": asked["score_threshold"],
            },
            "query": sent["query"],
            "knowledge_id": dataset.external_id,
            "metadata_condition": None,
        }
        status, answer = post(f"{settings['endpoint']}/retrieval", settings["api_key"], body)
        if status != 200:
            message = f"Reached maximum retries (3) for URL {settings['endpoint']}/retrieval"
            raise Refusal(500, "internal_server_error", message)
        return Answer(
            200, {"query": {"content": sent["query"]}, "records": json.loads(answer)["records"]}
        )


_DATASET, _APP = f"/datasets/{_ID}", f"/apps/{_ID}"
_EXTERNAL = "/datasets/external-knowledge-api"
ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/all-workspaces", ConsoleRoutes.all_workspaces),
    ("GET", "/datasets/api-keys", ConsoleRoutes.dataset_keys),
    ("POST", "/datasets/api-keys", ConsoleRoutes.create_dataset_key),
    ("GET", f"{_DATASET}/use-check", ConsoleRoutes.use_check),
    ("GET", f"{_DATASET}/related-apps", ConsoleRoutes.related_apps),
    ("POST", f"{_DATASET}/external-hit-testing", ConsoleRoutes.external_hit_testing),
    ("GET", "/apps", ConsoleRoutes.list_apps),
    ("POST", "/apps/imports", ConsoleRoutes.import_app),
    ("POST", f"/apps/imports/{_ID}/confirm", ConsoleRoutes.confirm_import),
    ("GET", _APP, ConsoleRoutes.get_app),
    ("DELETE", _APP, ConsoleRoutes.delete_app),
    ("GET", f"{_APP}/export", ConsoleRoutes.export_app),
    ("POST", f"{_APP}/workflows/publish", ConsoleRoutes.publish),
    ("GET", f"{_APP}/workflows", ConsoleRoutes.versions),
    ("GET", f"{_APP}/workflows/draft", ConsoleRoutes.draft),
    ("POST", f"{_APP}/model-config", ConsoleRoutes.model_config),
    ("POST", f"{_APP}/api-enable", ConsoleRoutes.api_enable),
    ("GET", f"{_APP}/api-keys", ConsoleRoutes.app_keys),
    ("POST", f"{_APP}/api-keys", ConsoleRoutes.create_app_key),
    ("DELETE", f"{_APP}/api-keys/{_ID}", ConsoleRoutes.delete_app_key),
    ("GET", "/workspaces/current/model-providers", ConsoleRoutes.model_providers),
    ("GET", f"/workspaces/current/models/model-types/{_WORD}", ConsoleRoutes.models),
    ("POST", _PROVIDER_PATH, ConsoleRoutes.create_credential),
    ("GET", _PROVIDER_PATH, ConsoleRoutes.credential),
    ("POST", "/workspaces/current/default-model", ConsoleRoutes.set_default_model),
    ("GET", _EXTERNAL, ConsoleRoutes.external_apis),
    ("POST", _EXTERNAL, ConsoleRoutes.create_external_api),
    ("GET", f"{_EXTERNAL}/{_ID}/use-check", ConsoleRoutes.external_use_check),
    ("POST", "/datasets/external", ConsoleRoutes.create_external_dataset),
]


def create_workspace(
    workspaces: dict[str, Workspace], accounts: set[str], request: Request
) -> Answer:
    """The inner API's workspace of an account."""
    sent = request.json
    if sent["owner_email"] not in accounts:
        raise Refusal(404, "", "", body={"message": "owner account not found."})
    made = Workspace(sent["name"])
    workspaces[made.id] = made
    body: dict[str, Any] = body_of("inner_create_workspace_200")
    body["tenant"] |= {"id": made.id, "name": made.name}
    return Answer(200, body)


def _new_key(keys: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    if len(keys) >= 10:
        message = "Cannot create more than 10 API keys for this resource type."
        body = {"custom": "max_keys_exceeded", "message": message}
        raise Refusal(400, "", "", body=body)
    made = {
        "id": new_id(),
        "type": kind,
        "token": f"{kind}-{new_id()}",
        "last_used_at": None,
        "created_at": now(),
    }
    keys.append(made)
    return made


def _import_shape(dsl: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
    imported = str((dsl or {}).get("version", ""))
    shape: dict[str, Any] = body_of("console_app_import_pending_202")
    return shape | {"imported_dsl_version": imported} | given


def _import_failed(error: str) -> Answer:
    return Answer(400, _import_shape(None, id=new_id(), status="failed", error=error))
