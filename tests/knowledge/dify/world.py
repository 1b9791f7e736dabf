"""The Dify that the recordings were made on, as a state of the double: with the recorded ids."""

import copy
from functools import cache
from typing import Any, Final

import yaml

from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.source import KnowledgeSource
from tests.knowledge.dify.double.state import (
    App,
    Conversation,
    Dataset,
    Document,
    Message,
    Segment,
    Workspace,
    now,
)
from tests.knowledge.dify.double.transfer import taken_in
from tests.knowledge.dify.recorded import recorded

OWN: Final = "f2668100-7dca-48eb-8655-bcdddcfc5219"
HR, SECOND = "feda8f3c-022e-4a97-98cd-90a26af765ee", "a201318b-3e7c-4c9f-a6d0-064a2dba8cdc"
CLEAN, FLOW = "1e774826-de25-4f82-bc8f-3c3fe768f13e", "99a85b24-52aa-4f8b-9e2d-f9f1403bcfc2"
EXTERNAL, EXTERNAL_2 = (
    "75fa7422-a6bb-4573-9946-30bcee3135fa",
    "081447bb-fd84-4932-8053-428b30296601",
)
SOURCE: Final = "ac570834-cdea-47a7-918b-0b42d9f3114d"
HR_TEXT, HR_FILE = "eda8e876-2d77-4804-92e0-a346b1c106bf", "9b2e42ca-5fa6-4aef-8f27-ac1d7ff65ca7"
CLEAN_TEXT, FLOW_TEXT = (
    "c296ecf6-57a2-4ed8-bfe6-56e6ad628aad",
    "8c5fe2f7-5966-4932-ba89-c5efc844f600",
)
CHAT, CHATFLOW = "ef2afbc4-2df2-4597-a186-2da0b7902769", "bc915310-c1ee-49af-b95f-700c0d8bea81"
WORKFLOW: Final = "86c1c910-8c3f-41bf-b590-317dcaa6f5ba"
OUTSIDE: Final = "08a930fd-c27e-406b-81d1-f3e9da49a3ea"
CONVERSATION: Final = "ea017528-5f6b-4f69-9e67-7e872ffa7777"
CHAT_KEY: Final = "865488c1-b335-42d9-a056-ef31abb584de"
PENDING: Final = "c756d4ea-3a94-477a-a191-bd92b9a69897"
HR_FIELD, FLOW_FIELD = (
    "199da7fc-6420-4988-8d45-d884817ebe3f",
    "eb7f2134-71fa-4736-b2eb-8e15fbc585bc",
)
TAG: Final = "5ee69b93-4ac0-4b7a-8059-aaa57999b1be"
SOURCE_URL: Final = "http://127.0.0.1:5903/dify"
POLICY: Final = "Vacation: twenty five days per year.\n\nRemote work: three days per week."


def recorded_world(double: DifyDouble, source: KnowledgeSource) -> None:
    """Puts the double into the state that most recordings were made in."""
    double.console_key, double.inner_key = "<ADMIN_API_KEY>", "<INNER_API_KEY>"
    double.workspaces.clear()
    own = double.own = Workspace("admin's Workspace", OWN)
    other = double.other = Workspace("Tenant B", "5358b7c8-0970-448f-bd1d-ee47cc8b95b5")
    double.workspaces |= {own.id: own, other.id: other}
    own.keys.append(_key("cb10660a-082c-4dd9-8a30-b7f08d2ae4f4", "dataset", "<DATASET_API_KEY>"))
    other.keys.append(_key(CHAT_KEY, "dataset", "<DATASET_API_KEY_WORKSPACE_B>"))
    _datasets(own, source)
    _apps(own)
    own.tags[TAG] = "tenant:acme"
    own.datasets[HR].tags.add(TAG)
    own.datasets[HR].fields[HR_FIELD] = _field(HR_FIELD, "source_id")
    own.datasets[FLOW].fields[FLOW_FIELD] = _field(FLOW_FIELD, "portal_id")
    own.datasets[FLOW].documents[FLOW_TEXT].metadata[FLOW_FIELD] = {
        "id": FLOW_FIELD, "name": "portal_id", "value": "doc-42", "type": "string",
    }  # fmt: skip


def _datasets(own: Workspace, source: KnowledgeSource) -> None:
    own.external_apis[SOURCE] = {
        **recorded("console_external_api_create_201").body,
        "settings": {"endpoint": source.url, "api_key": source.key},
    }
    for name, dataset_id in (("HR handbook", HR), ("Clean flow KB", CLEAN), ("Flow KB", FLOW)):
        own.datasets[dataset_id] = Dataset(name, "", "all_team_members", "economy", id=dataset_id)
    own.datasets[SECOND] = Dataset("Second KB", "", "only_me", None, id=SECOND)
    for number, dataset_id in enumerate((EXTERNAL, EXTERNAL_2)):
        own.datasets[dataset_id] = Dataset(
            f"External {number}", "", "only_me", None, "external", SOURCE, "portal-kb-42",
            id=dataset_id,
        )  # fmt: skip
    hr_text = recorded("kb_document_create_by_text_200").sent["text"]
    _document(own, HR, HR_TEXT, "hr-policy.txt", hr_text, "20261123171329489034")
    _document(own, HR, HR_FILE, "security.md", "# Security", "20261123171342290369")
    _document(own, CLEAN, CLEAN_TEXT, "policy.md", POLICY, "20261123171503898538")
    _document(own, FLOW, FLOW_TEXT, "policy.md", POLICY, "20261123171503898539")


def _document(
    own: Workspace, dataset: str, document: str, name: str, text: str, batch: str
) -> None:
    documents = own.datasets[dataset].documents
    rule = {"mode": "custom", "rules": {"segmentation": {"separator": "\n\n"}}}
    documents[document] = Document(
        name, name, text.encode(), len(documents) + 1, rule, 0, 2, id=document, batch=batch,
        completed_at=now(), segments=[Segment(part) for part in text.split("\n\n")],
    )  # fmt: skip


def _apps(own: Workspace) -> None:
    for app_id, name in (
        (CHAT, "console_app_import_chat_200"),
        # The chatflow was moved to another knowledge base after its import.
        (CHATFLOW, "console_app_import_overwrite_advanced_chat_200"),
        (WORKFLOW, "console_app_import_workflow_200"),
        (OUTSIDE, "console_app_import_external_kb_200"),
    ):
        dsl = dsl_of(name)
        kept = taken_in(dsl, own.id)
        app = own.apps[app_id] = App(dsl["app"]["name"], dsl["app"]["mode"], kept, id=app_id)
        app.publish()
    for app_id, token in (
        (CHAT, "<CHAT_APP_API_KEY>"),
        (CHATFLOW, "<FLOW_APP_API_KEY>"),
        (WORKFLOW, "<WF_APP_API_KEY>"),
        (OUTSIDE, "<EXT_APP_API_KEY>"),
    ):
        own.apps[app_id].keys.append(_key(CHAT_KEY, "app", token))
    own.apps[CHAT].conversations[CONVERSATION] = _conversation()
    newer = "console_app_import_pending_202"
    own.imports[PENDING] = {"dsl": dsl_of(newer), **recorded(newer).sent}


def _conversation() -> Conversation:
    told = recorded("app_messages").body["data"]
    name = recorded("app_conversations").body["data"][0]["name"]
    messages = [
        Message(m["id"], m["query"], m["answer"], m["retriever_resources"]) for m in reversed(told)
    ]
    return Conversation("portal-user-1", name, CONVERSATION, messages=messages)


def dsl_of(name: str) -> dict[str, Any]:
    """The DSL that a recorded import sent."""
    return copy.deepcopy(_read_dsl(name))


@cache
def _read_dsl(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(recorded(name).sent["yaml_content"])
    return found


def _key(key_id: str, kind: str, token: str) -> dict[str, Any]:
    return {"id": key_id, "type": kind, "token": token, "last_used_at": None, "created_at": now()}


def _field(field_id: str, name: str) -> dict[str, Any]:
    return {"id": field_id, "name": name, "type": "string"}
