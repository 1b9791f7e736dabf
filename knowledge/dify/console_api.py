"""Dify's console API: ``/console/api``, with the admin key, as the owner of one workspace."""

from collections.abc import Mapping
from typing import Any, Final

from knowledge.dify import shapes
from knowledge.dify.answers import Answer
from knowledge.dify.channel import Channel
from knowledge.dify.errors import Refused, UnexpectedAnswer
from knowledge.dify.shapes import PAGE_SIZE

GATEWAY_PROVIDER: Final = "langgenius/openai_api_compatible/openai_api_compatible"
"""Dify's plugin for models that speak OpenAI's protocol, which the portal's gateway does."""
_CREDENTIALS: Final = f"/workspaces/current/model-providers/{GATEWAY_PROVIDER}/models/credentials"
_BAD_REQUEST: Final = 400


class ConsoleApi:
    """Apps, keys, models and external knowledge of one workspace.

    Every method raises a ``DifyFault`` of the kind that says why it failed.
    """

    def __init__(self, channel: Channel, console_key: str, workspace_id: str) -> None:
        self._channel = channel
        self._headers = {
            "authorization": f"Bearer {console_key}",
            "x-workspace-id": workspace_id,
        }

    def _call(self, method: str, path: str, **how: Any) -> Answer:
        return self._channel.call(method, f"/console/api{path}", headers=self._headers, **how)

    # -- the instance ------------------------------------------------------------------------

    def system_features(self) -> shapes.SystemFeatures:
        """What Dify tells everybody: no key is sent."""
        answer = self._channel.call("GET", "/console/api/system-features", headers={})
        return answer.read(shapes.SystemFeatures)

    def workspaces(self, *, page: int = 1) -> shapes.Page[shapes.Workspace]:
        """All workspaces of the instance, not only the own one.

        Raises:
            KeyRefused: the key is wrong, or the workspace does not exist: Dify does not say which.
        """
        params = {"page": page, "limit": PAGE_SIZE}
        answer = self._call("GET", "/all-workspaces", params=params)
        return answer.read(shapes.Page[shapes.Workspace])

    def dataset_keys(self) -> list[shapes.Key]:
        """The workspace's dataset keys, in clear; ten at most."""
        return self._call("GET", "/datasets/api-keys").read(shapes.Listed[shapes.Key]).data

    def create_dataset_key(self) -> shapes.Key:
        """Makes a dataset key; the eleventh is ``Refused`` with ``max_keys_exceeded``."""
        return self._call("POST", "/datasets/api-keys").read(shapes.Key)

    # -- knowledge bases ---------------------------------------------------------------------

    def in_use(self, dataset_id: str) -> bool:
        """Whether an app uses the knowledge base; Dify deletes it all the same."""
        return self._call("GET", f"/datasets/{dataset_id}/use-check").read(shapes.InUse).is_using

    def related_apps(self, dataset_id: str) -> list[shapes.RelatedApp]:
        answer = self._call("GET", f"/datasets/{dataset_id}/related-apps")
        return answer.read(shapes.Listed[shapes.RelatedApp]).data

    # -- apps --------------------------------------------------------------------------------

    def list_apps(self, *, page: int = 1, name: str = "") -> shapes.Page[shapes.App]:
        params = {"page": page, "limit": PAGE_SIZE} | ({"name": name} if name else {})
        return self._call("GET", "/apps", params=params).read(shapes.Page[shapes.App])

    def get_app(self, app_id: str) -> shapes.AppDetail:
        return self._call("GET", f"/apps/{app_id}").read(shapes.AppDetail)

    def delete_app(self, app_id: str) -> None:
        self._call("DELETE", f"/apps/{app_id}")

    def import_app(self, dsl: str, *, name: str = "", app_id: str = "") -> shapes.Import:
        """Makes an app of its DSL, or overwrites the draft of one.

        Args:
            dsl: YAML.
            app_id: of a workflow or chatflow; Dify overwrites no other kind.

        Returns:
            Also one that failed: its ``error`` says why.
        """
        body: dict[str, Any] = {"mode": "yaml-content", "yaml_content": dsl}
        body |= {k: v for k, v in (("name", name), ("app_id", app_id)) if v}
        return self._imported("/apps/imports", json=body)

    def confirm_import(self, import_id: str) -> shapes.Import:
        """Goes on with a pending import, within ten minutes; later it is one that failed."""
        return self._imported(f"/apps/imports/{import_id}/confirm")

    def _imported(self, path: str, **how: Any) -> shapes.Import:
        answer = self._call("POST", path, accept=frozenset({_BAD_REQUEST}), **how)
        try:
            return answer.read(shapes.Import)
        except UnexpectedAnswer:
            if answer.status == _BAD_REQUEST:
                raise Refused(remote_status=answer.status) from None
            raise

    def export_app(self, app_id: str) -> str:
        """The app's DSL without its secrets; workflows have the ids of datasets encrypted."""
        params = {"include_secret": "false"}
        answer = self._call("GET", f"/apps/{app_id}/export", params=params)
        return answer.read(shapes.Exported).data

    def publish(self, app_id: str, *, name: str, comment: str = "") -> int:
        """Makes the draft of a workflow or chatflow the live version; chat apps always are.

        Returns:
            When, in seconds since 1970.
        """
        body = {"marked_name": name, "marked_comment": comment}
        answer = self._call("POST", f"/apps/{app_id}/workflows/publish", json=body)
        return answer.read(shapes.Published).created_at

    def draft(self, app_id: str) -> shapes.Draft:
        """The draft of a workflow or chatflow, the ids of datasets in clear."""
        return self._call("GET", f"/apps/{app_id}/workflows/draft").read(shapes.Draft)

    def live_hash(self, app_id: str) -> str:
        """Of what was published last of a workflow or chatflow; empty if nothing was."""
        params = {"page": 1, "limit": 10}
        answer = self._call("GET", f"/apps/{app_id}/workflows", params=params)
        found = answer.read(shapes.WorkflowVersions).items
        return next((one.hash for one in found if one.version != shapes.DRAFT), "")

    def set_model_config(self, app_id: str, config: Mapping[str, Any]) -> None:
        """Changes a chat app, which is live at once."""
        self._call("POST", f"/apps/{app_id}/model-config", json=config)

    def enable_app_api(self, app_id: str, *, enabled: bool) -> None:
        self._call("POST", f"/apps/{app_id}/api-enable", json={"enable_api": enabled})

    def app_keys(self, app_id: str) -> list[shapes.Key]:
        """The app's keys, in clear; ten at most."""
        return self._call("GET", f"/apps/{app_id}/api-keys").read(shapes.Listed[shapes.Key]).data

    def create_app_key(self, app_id: str) -> shapes.Key:
        return self._call("POST", f"/apps/{app_id}/api-keys").read(shapes.Key)

    def delete_app_key(self, app_id: str, key_id: str) -> None:
        self._call("DELETE", f"/apps/{app_id}/api-keys/{key_id}")

    # -- models ------------------------------------------------------------------------------

    def model_providers(self) -> list[str]:
        """The names of the providers whose plugins the workspace has."""
        answer = self._call("GET", "/workspaces/current/model-providers")
        return [p.provider for p in answer.read(shapes.Listed[shapes.ProviderName]).data]

    def models(self, model_type: str = "llm") -> list[shapes.Provider]:
        answer = self._call("GET", f"/workspaces/current/models/model-types/{model_type}")
        return answer.read(shapes.Listed[shapes.Provider]).data

    def create_model_credential(
        self, *, model: str, name: str, credentials: Mapping[str, str], model_type: str = "llm"
    ) -> None:
        """Registers a model behind the OpenAI-compatible provider.

        Args:
            credentials: ``endpoint_url``, ``api_key`` and the rest; Dify wants even those that
                have a default, such as ``stream_mode_delimiter``.

        A model that is registered already is ``Refused``.
        """
        body = {
            "model": model,
            "model_type": model_type,
            "name": name,
            "credentials": dict(credentials),
        }
        self._call("POST", _CREDENTIALS, json=body)

    def model_credential(self, model: str, *, model_type: str = "llm") -> shapes.ModelCredential:
        """How a model of the OpenAI-compatible provider is reached."""
        params = {"model": model, "model_type": model_type}
        return self._call("GET", _CREDENTIALS, params=params).read(shapes.ModelCredential)

    def set_default_model(self, model: str, *, model_type: str = "llm") -> None:
        """Makes a model of the OpenAI-compatible provider the workspace's default of its type."""
        settings = {"model_type": model_type, "provider": GATEWAY_PROVIDER, "model": model}
        body = {"model_settings": [settings]}
        self._call("POST", "/workspaces/current/default-model", json=body)

    # -- external knowledge ------------------------------------------------------------------

    def create_external_api(self, *, name: str, endpoint: str, key: str) -> shapes.ExternalApi:
        """Registers a source of knowledge, which Dify calls once to see that it is there.

        Args:
            endpoint: Dify posts to ``{endpoint}/retrieval``.
        """
        body = {"name": name, "settings": {"endpoint": endpoint, "api_key": key}}
        answer = self._call("POST", "/datasets/external-knowledge-api", json=body)
        return answer.read(shapes.ExternalApi)

    def external_apis(self, *, page: int = 1) -> shapes.Page[shapes.ExternalApi]:
        params = {"page": page, "limit": PAGE_SIZE}
        answer = self._call("GET", "/datasets/external-knowledge-api", params=params)
        return answer.read(shapes.Page[shapes.ExternalApi])

    def external_api_in_use(self, api_id: str) -> int:
        """How many knowledge bases a source serves."""
        path = f"/datasets/external-knowledge-api/{api_id}/use-check"
        return self._call("GET", path).read(shapes.InUse).count

    def create_external_dataset(
        self,
        *,
        api_id: str,
        knowledge_id: str,
        name: str,
        description: str = "",
        top_k: int = 3,
        score_threshold: float | None = None,
    ) -> shapes.Dataset:
        """Makes a knowledge base that is searched at its source."""
        body = {
            "external_knowledge_api_id": api_id,
            "external_knowledge_id": knowledge_id,
            "name": name,
            "description": description,
            "external_retrieval_model": _external(top_k, score_threshold),
        }
        return self._call("POST", "/datasets/external", json=body).read(shapes.Dataset)

    def external_hits(
        self, dataset_id: str, query: str, *, top_k: int = 3, score_threshold: float | None = None
    ) -> list[shapes.ExternalHit]:
        """What a query finds at the source of an external knowledge base."""
        body = {
            "query": query,
            "external_retrieval_model": _external(top_k, score_threshold),
        }
        answer = self._call("POST", f"/datasets/{dataset_id}/external-hit-testing", json=body)
        return answer.read(shapes.ExternalHits).records


class InnerApi:
    """Dify's inner API, which makes workspaces where ``INNER_API`` is on.

    Dify's licence allows several tenants in one instance only with written authorisation.
    """

    def __init__(self, channel: Channel, inner_key: str) -> None:
        self._channel = channel
        self._headers = {"x-inner-api-key": inner_key}

    def create_workspace(self, *, name: str, owner_email: str) -> shapes.Workspace:
        """Makes a workspace that belongs to an account of this Dify.

        Raises:
            KeyRefused: the inner key is wrong.
            Missing: there is no such account.
        """
        path = "/inner/api/enterprise/workspace"
        body = {"name": name, "owner_email": owner_email}
        answer = self._channel.call("POST", path, headers=self._headers, json=body)
        return answer.read(shapes.MadeWorkspace).tenant


def _external(top_k: int, score_threshold: float | None) -> dict[str, Any]:
    return {
        "top_k": top_k,
        "score_threshold": score_threshold or 0.0,
        "score_threshold_enabled": score_threshold is not None,
    }
