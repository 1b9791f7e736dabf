"""The double's service API for knowledge."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.knowledge.dify.double.http import Answer, Refusal, Request, invalid, missing
from tests.knowledge.dify.double.state import Dataset, Document, Workspace, new_id, now
from tests.knowledge.dify.recorded import body_of

MOST_FILE_BYTES = 15 * 1024 * 1024
EXTENSIONS = {"txt", "md", "markdown", "mdx", "pdf", "html", "htm", "xlsx", "xls", "docx", "csv"}
_REQUIRED_RETRIEVAL = ("search_method", "reranking_enable", "top_k", "score_threshold_enabled")
_SUCCESS = {"result": "success"}

Handler = Callable[["KnowledgeRoutes", Workspace, Request], Answer]
_ID, _WORD = r"([0-9a-f-]{36})", r"([^/]+)"


class KnowledgeRoutes:
    """What ``/v1`` does to a workspace.

    Attributes:
        indexing_reads: how often a document is asked about before it is indexed.
        unsettled_calls: how many further changes of a document's status are refused after one.
        lose: how many of the next documents to be indexed lose their segments silently.
    """

    def __init__(self) -> None:
        self.indexing_reads = 2
        self.unsettled_calls = 1
        self.lose = 0

    # -- knowledge bases ---------------------------------------------------------------------

    def list_datasets(self, workspace: Workspace, request: Request) -> Answer:
        wanted = request.query.get("keyword", "").lower()
        tags = {t for t in request.query.get("tag_ids", "").split(",") if t}
        found = [
            dataset.shape(workspace, asked=True)
            for dataset in reversed(workspace.datasets.values())
            if wanted in dataset.name.lower() and tags <= dataset.tags
        ]
        return Answer(200, paged(found, request))

    def create_dataset(self, workspace: Workspace, request: Request) -> Answer:
        sent = request.json
        name = _name(sent, "DatasetCreatePayload")
        technique = sent.get("indexing_technique")
        if technique not in (None, "economy", "high_quality"):
            raise invalid("1 validation error for DatasetCreatePayload\nindexing_technique")
        if name in {dataset.name for dataset in workspace.datasets.values()}:
            raise Refusal(409, "dataset_name_duplicate", "The dataset name already exists.")
        if technique == "high_quality" and not workspace.embedding:
            raise invalid("Default model not found for text-embedding")
        dataset = Dataset(
            name,
            sent.get("description", ""),
            sent.get("permission", "only_me"),
            technique,
            sent.get("provider", "vendor"),
            sent.get("external_knowledge_api_id"),
            sent.get("external_knowledge_id"),
        )
        if sent.get("retrieval_model"):
            dataset.retrieval = _stored(_retrieval_model(sent["retrieval_model"]))
        workspace.datasets[dataset.id] = dataset
        return Answer(200, dataset.shape(workspace))

    def get_dataset(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, self._dataset(workspace, request).shape(workspace, asked=True))

    def update_dataset(self, workspace: Workspace, request: Request) -> Answer:
        dataset, sent = self._dataset(workspace, request), request.json
        if "name" in sent:
            name = _name(sent, "DatasetUpdatePayload")
            if any(d.name == name for d in workspace.datasets.values() if d is not dataset):
                raise invalid("Dataset name already exists")
            dataset.name = name
        dataset.description = sent.get("description", dataset.description)
        dataset.permission = sent.get("permission", dataset.permission)
        if sent.get("retrieval_model"):
            dataset.retrieval = _stored(_retrieval_model(sent["retrieval_model"]))
        dataset.updated_at = now()
        return Answer(200, {**dataset.shape(workspace), "partial_member_list": []})

    def delete_dataset(self, workspace: Workspace, request: Request) -> Answer:
        """Without asking whether an app uses it, as Dify does."""
        del workspace.datasets[self._dataset(workspace, request).id]
        return Answer(204)

    def _dataset(self, workspace: Workspace, request: Request) -> Dataset:
        dataset = workspace.datasets.get(request.ids[0])
        if dataset is None:
            raise missing("Dataset not found.")
        if not dataset.api_enabled:
            raise Refusal(403, "forbidden", "Dataset api access is not enabled.")
        return dataset

    # -- documents ---------------------------------------------------------------------------

    def create_by_text(self, workspace: Workspace, request: Request) -> Answer:
        dataset, sent = self._dataset(workspace, request), request.json
        for required in ("name", "text"):
            if required not in sent:
                raise invalid(f"1 validation error for DocumentTextCreatePayload\n{required}")
        return self._take(dataset, sent["name"], sent["name"], sent["text"].encode(), sent)

    def create_by_file(self, workspace: Workspace, request: Request) -> Answer:
        dataset = self._dataset(workspace, request)
        fields, file = request.multipart()
        if file is None:
            raise Refusal(400, "no_file_uploaded", "Please upload your file.")
        _check_file(file.filename, file.content)
        sent = json.loads(fields.get("data", "{}"))
        return self._take(dataset, file.filename, file.filename, file.content, sent)

    def _take(
        self, dataset: Dataset, name: str, filename: str, content: bytes, sent: Mapping[str, Any]
    ) -> Answer:
        technique = sent.get("indexing_technique") or dataset.technique
        if technique is None:
            raise invalid("indexing_technique is required.")
        dataset.technique = technique
        document = Document(
            name,
            filename,
            content,
            len(dataset.documents) + 1,
            dict(sent.get("process_rule") or {"mode": "automatic"}),
            self.indexing_reads,
            self.indexing_reads,
        )
        # Indexed together with the first one of a new economy knowledge base: its segments go
        # missing, and Dify says "completed".
        together = bool(dataset.documents) and not dataset.indexed_once()
        document.lost = (technique == "economy" and together) or self._losing()
        dataset.documents[document.id] = document
        return _accepted(document)

    def _losing(self) -> bool:
        self.lose, losing = max(self.lose - 1, 0), self.lose > 0
        return losing

    def update_by_text(self, workspace: Workspace, request: Request) -> Answer:
        document, sent = self._document(workspace, request, "Document not found"), request.json
        return self._replace(document, sent.get("name", document.name), sent["text"].encode())

    def update_by_file(self, workspace: Workspace, request: Request) -> Answer:
        document = self._document(workspace, request, "Document not found")
        _, file = request.multipart()
        if file is None:
            raise Refusal(400, "no_file_uploaded", "Please upload your file.")
        _check_file(file.filename, file.content)
        document.filename = file.filename
        return self._replace(document, file.filename, file.content)

    def _replace(self, document: Document, name: str, content: bytes) -> Answer:
        if document.display_status != "available":
            raise invalid("Document is not available")
        document.name, document.content, document.file_id = name, content, new_id()
        document.reads_left = document.reads = self.indexing_reads
        document.lost, document.updated = self._losing(), True
        document.segments, document.completed_at = [], None
        return _accepted(document)

    def list_documents(self, workspace: Workspace, request: Request) -> Answer:
        dataset = self._dataset(workspace, request)
        self._advance(dataset)
        wanted = request.query.get("keyword", "").lower()
        status = request.query.get("status", "")
        found = [
            document.shape()
            for document in reversed(dataset.documents.values())
            if wanted in document.name.lower() and status in ("", document.display_status)
        ]
        return Answer(200, paged(found, request))

    def get_document(self, workspace: Workspace, request: Request) -> Answer:
        self._advance(self._dataset(workspace, request))
        document = self._document(workspace, request, "Document not found.")
        return Answer(200, document.detail(request.ids[0]))

    def delete_document(self, workspace: Workspace, request: Request) -> Answer:
        document = self._document(workspace, request, "Document Not Exists.")
        del self._dataset(workspace, request).documents[document.id]
        return Answer(204)

    def _document(self, workspace: Workspace, request: Request, without: str) -> Document:
        document = self._dataset(workspace, request).documents.get(request.ids[1])
        if document is None:
            raise missing(without)
        return document

    @staticmethod
    def _advance(dataset: Dataset) -> None:
        for document in dataset.documents.values():
            document.advance()

    def set_status(self, workspace: Workspace, request: Request) -> Answer:
        dataset, action = self._dataset(workspace, request), request.ids[1]
        if action not in ("enable", "disable", "archive", "un_archive"):
            raise Refusal(400, "invalid_action", f"Invalid action: {action}.")
        for document_id in request.json["document_ids"]:
            document = dataset.documents.get(document_id)
            if document is None:
                continue
            if document.unsettled or not document.completed:
                document.unsettled = max(document.unsettled - 1, 0)
                message = f"Document:{document.name} is being indexed, please try again later"
                raise Refusal(400, "invalid_action", message)
            if action in ("enable", "disable"):
                document.enabled = action == "enable"
            else:
                document.archived = action == "archive"
            document.unsettled = self.unsettled_calls
        return Answer(200, _SUCCESS)

    def indexing_status(self, workspace: Workspace, request: Request) -> Answer:
        dataset = self._dataset(workspace, request)
        self._advance(dataset)
        found = [d.status() for d in dataset.documents.values() if d.batch == request.ids[1]]
        if not found:
            raise missing("Documents not found.")
        return Answer(200, {"data": found})

    def list_segments(self, workspace: Workspace, request: Request) -> Answer:
        document = self._document(workspace, request, "Document not found.")
        shapes = [s.shape(document, n, listed=True) for n, s in enumerate(document.segments, 1)]
        return Answer(200, {**paged(shapes, request), "doc_form": "text_model"})

    # -- retrieval ---------------------------------------------------------------------------

    def retrieve(self, workspace: Workspace, request: Request) -> Answer:
        dataset, sent = self._dataset(workspace, request), request.json
        query = sent.get("query")
        if query is None or len(query) > 250:
            raise invalid("1 validation error for HitTestingPayload\nquery")
        model = _retrieval_model(sent["retrieval_model"]) if sent.get("retrieval_model") else {}
        if dataset.provider == "external" and not model:
            raise Refusal(500, "internal_server_error", "'reranking_enable'")
        method = model.get("search_method", "keyword_search")
        if method != "keyword_search" and dataset.technique != "high_quality":
            raise invalid("Could not connect to Weaviate")
        words = set(re.findall(r"\w+", query))
        matches = _conditions(model.get("metadata_filtering_conditions"))
        records = [
            {
                **body_of("kb_retrieve_keyword_200")["records"][0],
                "segment": segment.shape(document, number, listed=False),
            }
            for document in dataset.documents.values()
            if document.display_status == "available" and not document.lost and matches(document)
            for number, segment in enumerate(document.segments, 1)
            if words & set(segment.keywords)
        ]
        kept = records[: int(model.get("top_k", 2))]
        return Answer(200, {"query": {"content": query}, "records": kept})

    # -- metadata ----------------------------------------------------------------------------

    def metadata(self, workspace: Workspace, request: Request) -> Answer:
        dataset = self._dataset(workspace, request)
        fields = [
            {
                **found,
                "count": sum(found["id"] in d.metadata for d in dataset.documents.values()),
            }
            for found in dataset.fields.values()
        ]
        return Answer(200, {"doc_metadata": fields, "built_in_field_enabled": dataset.built_in})

    def create_metadata(self, workspace: Workspace, request: Request) -> Answer:
        dataset, sent = self._dataset(workspace, request), request.json
        if any(found["name"] == sent["name"] for found in dataset.fields.values()):
            raise invalid("Metadata name already exists.")
        made = {"id": new_id(), "type": sent["type"], "name": sent["name"]}
        dataset.fields[made["id"]] = made
        return Answer(201, made)

    def rename_metadata(self, workspace: Workspace, request: Request) -> Answer:
        found = self._field(workspace, request)
        found["name"] = request.json["name"]
        return Answer(200, found)

    def delete_metadata(self, workspace: Workspace, request: Request) -> Answer:
        del self._dataset(workspace, request).fields[self._field(workspace, request)["id"]]
        return Answer(204)

    def _field(self, workspace: Workspace, request: Request) -> dict[str, Any]:
        found = self._dataset(workspace, request).fields.get(request.ids[1])
        if found is None:
            raise missing("Metadata not found.")
        return found

    def set_metadata(self, workspace: Workspace, request: Request) -> Answer:
        dataset = self._dataset(workspace, request)
        for operation in request.json["operation_data"]:
            document = dataset.documents.get(operation["document_id"])
            if document is None:
                raise missing("Document not found.")
            if not operation.get("partial_update"):
                document.metadata = {}
            for value in operation["metadata_list"]:
                kind = dataset.fields.get(value["id"], {"type": "string"})["type"]
                document.metadata[value["id"]] = {**value, "type": kind}
        return Answer(200, _SUCCESS)

    # -- tags and models ---------------------------------------------------------------------

    def list_tags(self, workspace: Workspace, request: Request) -> Answer:
        return Answer(200, [self._tag(workspace, tag) for tag in workspace.tags])

    def create_tag(self, workspace: Workspace, request: Request) -> Answer:
        tag = new_id()
        workspace.tags[tag] = request.json["name"]
        return Answer(200, self._tag(workspace, tag))

    @staticmethod
    def _tag(workspace: Workspace, tag: str) -> dict[str, Any]:
        bound = sum(tag in dataset.tags for dataset in workspace.datasets.values())
        return {
            "id": tag,
            "name": workspace.tags[tag],
            "type": "knowledge",
            "binding_count": str(bound),
        }

    def bind_tags(self, workspace: Workspace, request: Request) -> Answer:
        self._target(workspace, request).tags |= set(request.json["tag_ids"]) & set(workspace.tags)
        return Answer(204)

    def unbind_tags(self, workspace: Workspace, request: Request) -> Answer:
        self._target(workspace, request).tags -= set(request.json["tag_ids"])
        return Answer(204)

    @staticmethod
    def _target(workspace: Workspace, request: Request) -> Dataset:
        dataset = workspace.datasets.get(request.json["target_id"])
        if dataset is None:
            raise missing("Dataset not found")
        return dataset

    def dataset_tags(self, workspace: Workspace, request: Request) -> Answer:
        tags = sorted(self._dataset(workspace, request).tags)
        shapes = [{"id": tag, "name": workspace.tags[tag]} for tag in tags]
        return Answer(200, {"data": shapes, "total": len(shapes)})

    def models(self, workspace: Workspace, request: Request) -> Answer:
        found = []
        if request.ids[0] == "text-embedding" and workspace.embedding:
            provider = body_of("console_models_llm")["data"][0]
            provider["models"][0] |= {"model": "embedder", "model_type": "text-embedding"}
            found = [provider]
        return Answer(200, {"data": found})


_DATASET = f"/datasets/{_ID}"
_DOCUMENT = f"{_DATASET}/documents/{_ID}"
ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/datasets", KnowledgeRoutes.list_datasets),
    ("POST", "/datasets", KnowledgeRoutes.create_dataset),
    ("GET", "/datasets/tags", KnowledgeRoutes.list_tags),
    ("POST", "/datasets/tags", KnowledgeRoutes.create_tag),
    ("POST", "/datasets/tags/binding", KnowledgeRoutes.bind_tags),
    ("POST", "/datasets/tags/unbinding", KnowledgeRoutes.unbind_tags),
    ("GET", _DATASET, KnowledgeRoutes.get_dataset),
    ("PATCH", _DATASET, KnowledgeRoutes.update_dataset),
    ("DELETE", _DATASET, KnowledgeRoutes.delete_dataset),
    ("GET", f"{_DATASET}/tags", KnowledgeRoutes.dataset_tags),
    ("POST", f"{_DATASET}/document/create-by-text", KnowledgeRoutes.create_by_text),
    ("POST", f"{_DATASET}/document/create-by-file", KnowledgeRoutes.create_by_file),
    ("GET", f"{_DATASET}/documents", KnowledgeRoutes.list_documents),
    ("POST", f"{_DATASET}/documents/metadata", KnowledgeRoutes.set_metadata),
    ("PATCH", f"{_DATASET}/documents/status/{_WORD}", KnowledgeRoutes.set_status),
    ("GET", _DOCUMENT, KnowledgeRoutes.get_document),
    ("PATCH", _DOCUMENT, KnowledgeRoutes.update_by_file),
    ("DELETE", _DOCUMENT, KnowledgeRoutes.delete_document),
    ("POST", f"{_DOCUMENT}/update-by-text", KnowledgeRoutes.update_by_text),
    ("POST", f"{_DOCUMENT}/update-by-file", KnowledgeRoutes.update_by_file),
    ("GET", f"{_DATASET}/documents/{_WORD}/indexing-status", KnowledgeRoutes.indexing_status),
    ("GET", f"{_DOCUMENT}/segments", KnowledgeRoutes.list_segments),
    ("POST", f"{_DATASET}/retrieve", KnowledgeRoutes.retrieve),
    ("GET", f"{_DATASET}/metadata", KnowledgeRoutes.metadata),
    ("POST", f"{_DATASET}/metadata", KnowledgeRoutes.create_metadata),
    ("PATCH", f"{_DATASET}/metadata/{_ID}", KnowledgeRoutes.rename_metadata),
    ("DELETE", f"{_DATASET}/metadata/{_ID}", KnowledgeRoutes.delete_metadata),
    ("GET", f"/workspaces/current/models/model-types/{_WORD}", KnowledgeRoutes.models),
]


def paged(found: list[Any], request: Request) -> dict[str, Any]:
    """A page of a list as Dify cuts it: a hundred at most, whatever is asked."""
    page = int(request.query.get("page", 1))
    limit = min(int(request.query.get("limit", 20)), 100)
    start = (page - 1) * limit
    return {
        "data": found[start : start + limit],
        "has_more": start + limit < len(found),
        "limit": limit,
        "total": len(found),
        "page": page,
    }


def _name(sent: Mapping[str, Any], payload: str) -> str:
    name = sent.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 40:
        raise invalid(f"1 validation error for {payload}\nname")
    return name


def _retrieval_model(sent: Mapping[str, Any]) -> dict[str, Any]:
    lacking = [name for name in _REQUIRED_RETRIEVAL if name not in sent]
    if lacking:
        raise invalid(f"{len(lacking)} validation errors for HitTestingPayload")
    return dict(sent)


def _stored(model: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in model.items() if k != "metadata_filtering_conditions"}


def _accepted(document: Document) -> Answer:
    return Answer(200, {"document": document.shape(), "batch": document.batch})


def _check_file(filename: str, content: bytes) -> None:
    extension = filename.rpartition(".")[2].lower()
    if extension not in EXTENSIONS or len(content) > MOST_FILE_BYTES:
        raise invalid("")


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda has, asked: asked in has,
    "not contains": lambda has, asked: asked not in has,
    "start with": lambda has, asked: has.startswith(asked),
    "end with": lambda has, asked: has.endswith(asked),
    "is": lambda has, asked: has == asked,
    "is not": lambda has, asked: has != asked,
}


def _conditions(sent: Mapping[str, Any] | None) -> Callable[[Document], bool]:
    conditions = (sent or {}).get("conditions", [])
    if any(c["comparison_operator"] not in _OPERATORS for c in conditions):
        raise invalid("1 validation error for HitTestingPayload\ncomparison_operator")
    together = any if (sent or {}).get("logical_operator") == "or" else all

    def matches(document: Document) -> bool:
        values = {value["name"]: str(value["value"]) for value in document.metadata.values()}
        return not conditions or together(
            _OPERATORS[c["comparison_operator"]](values.get(c["name"], ""), str(c["value"]))
            for c in conditions
        )

    return matches
