"""What was different at the recorded Dify when an exchange was recorded."""

import re
from collections.abc import Callable

from tests.knowledge.dify import world as w
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.source import KnowledgeSource
from tests.knowledge.dify.recorded import recorded, recordings

Prepare = Callable[[DifyDouble, KnowledgeSource], None]


def _unindexed(batch: str, reads_left: int) -> Prepare:
    def prepare(double: DifyDouble, _: KnowledgeSource) -> None:
        for dataset in double.own.datasets.values():
            for document in dataset.documents.values():
                if document.batch == batch:
                    document.reads_left, document.reads, document.segments = reads_left, 4, []

    return prepare


def _without(*datasets: str) -> Prepare:
    def prepare(double: DifyDouble, _: KnowledgeSource) -> None:
        for dataset in datasets:
            del double.own.datasets[dataset]

    return prepare


def _without_document(double: DifyDouble, _: KnowledgeSource) -> None:
    del double.own.datasets[w.HR].documents[w.HR_FILE]


def _without_field(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.datasets[w.HR].fields.clear()


def _api_off(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.datasets[w.FLOW].api_enabled = False


def _ten_keys(double: DifyDouble, _: KnowledgeSource) -> None:
    double.other.keys *= 10


def _unsettled(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.datasets[w.HR].documents[w.HR_TEXT].unsettled = 1


def _confirmed(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.imports.clear()


def _broken_source(_: DifyDouble, source: KnowledgeSource) -> None:
    source.broken = True


def with_model(double: DifyDouble, _: KnowledgeSource) -> None:
    """The workspace has the recorded model."""
    sent = recorded("console_model_credential_create_201").sent
    double.own.models["private-llm"] = sent


def _app_api_off(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.apps[w.CHAT].api_enabled = False


def _app_deleted(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.gone_keys |= {key["token"] for key in double.own.apps.pop(w.WORKFLOW).keys}


def _unpublished(double: DifyDouble, _: KnowledgeSource) -> None:
    double.own.apps[w.WORKFLOW].live = None


def _without_weights(double: DifyDouble, _: KnowledgeSource) -> None:
    """The chatflow as it was imported first, whose retrieval node is not whole."""
    with_model(double, _)
    app = double.own.apps[w.CHATFLOW]
    app.dsl = w.dsl_of("console_app_import_advanced_chat_200")
    app.publish()


# What a model had a part in; the workspace had none when most others were recorded.
ANSWERED = {
    name
    for name in recordings()
    if re.match(r"app_(chat|chatflow|workflow_run)_.*_200", name) and "failed" not in name
}


# What was different when an exchange was recorded; all others were made in the same state.
STATES: dict[str, Prepare] = {
    "kb_dataset_create_economy_200": _without(w.HR),
    "kb_external_dataset_create_200": _without(w.EXTERNAL_2),
    "kb_dataset_delete_again_404": _without(w.SECOND),
    "kb_document_delete_again_404": _without_document,
    "kb_dataset_api_disabled_403": _api_off,
    "kb_metadata_create": _without_field,
    "kb_indexing_status_waiting": _unindexed("20261123171329489034", 5),
    "kb_update_indexing_status_completed_running": _unindexed("20261123171329489034", 4),
    "kb_file_indexing_status_completed_running": _unindexed("20261123171342290369", 5),
    "kb_documents_status_enable": _unsettled,
    "console_dataset_api_keys_max_400": _ten_keys,
    "console_app_import_confirm_again_400": _confirmed,
    "console_external_hit_testing_portal_500": _broken_source,
    "console_models_llm": with_model,
    "console_model_credential_get": with_model,
    "app_api_disabled_403": _app_api_off,
    "app_deleted_key_403": _app_deleted,
    "app_workflow_run_unpublished_400": _unpublished,
    "app_chatflow_blocking_run_failed_400": _without_weights,
    "app_chatflow_streaming_failed_200": _without_weights,
} | {name: with_model for name in recordings() if name in ANSWERED}
