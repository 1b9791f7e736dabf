"""Dify's service API for knowledge: ``/v1/datasets``, with a dataset key.

The key covers the whole workspace and acts as its owner.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from knowledge.dify import shapes
from knowledge.dify.answers import Answer
from knowledge.dify.channel import Channel, Upload
from knowledge.dify.errors import Unsupported
from knowledge.dify.shapes import PAGE_SIZE, Technique

T = TypeVar("T")

PERMISSION: Final = "all_team_members"
AUTOMATIC: Final[Mapping[str, Any]] = {"mode": "automatic"}


class KnowledgeApi:
    """Knowledge bases and documents of one workspace.

    Every method raises a ``DifyFault`` of the kind that says why it failed.
    """

    def __init__(self, channel: Channel, dataset_key: str) -> None:
        self._channel = channel
        self._headers = {"authorization": f"Bearer {dataset_key}"}

    def _call(self, method: str, path: str, **how: Any) -> Answer:
        return self._channel.call(method, f"/v1{path}", headers=self._headers, **how)

    # -- knowledge bases ---------------------------------------------------------------------

    def list_datasets(
        self, *, page: int = 1, limit: int = PAGE_SIZE, keyword: str = ""
    ) -> shapes.Page[shapes.Dataset]:
        """One page of the workspace's knowledge bases, whoever made them."""
        params = {"page": page, "limit": limit, "include_all": "true"}
        if keyword:
            params["keyword"] = keyword
        return self._call("GET", "/datasets", params=params).read(shapes.Page[shapes.Dataset])

    def datasets(self) -> Iterator[shapes.Dataset]:
        """All knowledge bases of the workspace, a page at a time."""
        number, more = 1, True
        while more:
            page = self.list_datasets(page=number)
            yield from page.data
            number, more = number + 1, page.has_more

    def create_dataset(
        self,
        name: str,
        *,
        description: str = "",
        indexing_technique: Technique = "economy",
        embedding_model: str = "",
        embedding_model_provider: str = "",
        retrieval_model: shapes.RetrievalModel | None = None,
    ) -> shapes.Dataset:
        """Makes a knowledge base that the whole workspace sees.

        Raises:
            NameTaken: another one of the workspace has the name.
        """
        body = _given(
            name=name,
            description=description,
            indexing_technique=indexing_technique,
            permission=PERMISSION,
            provider="vendor",
            embedding_model=embedding_model,
            embedding_model_provider=embedding_model_provider,
            retrieval_model=retrieval_model,
        )
        return self._call("POST", "/datasets", json=body).read(shapes.Dataset)

    def get_dataset(self, dataset_id: str) -> shapes.Dataset:
        return self._call("GET", f"/datasets/{dataset_id}").read(shapes.Dataset)

    def update_dataset(
        self,
        dataset_id: str,
        *,
        name: str | None = None,
        description: str | None = None,
        retrieval_model: shapes.RetrievalModel | None = None,
    ) -> shapes.Dataset:
        """Changes what is given. A name that is taken is ``Refused``, without saying so."""
        body = {"permission": PERMISSION}
        body |= {k: v for k, v in (("name", name), ("description", description)) if v is not None}
        body |= _given(retrieval_model=retrieval_model)
        return self._call("PATCH", f"/datasets/{dataset_id}", json=body).read(shapes.Dataset)

    def delete_dataset(self, dataset_id: str) -> None:
        """Deletes it though apps use it, which breaks them: ask ``ConsoleApi.in_use`` first."""
        self._call("DELETE", f"/datasets/{dataset_id}")

    # -- documents ---------------------------------------------------------------------------

    def create_document_by_text(
        self,
        dataset_id: str,
        *,
        name: str,
        text: str,
        indexing_technique: Technique,
        process_rule: Mapping[str, Any] = AUTOMATIC,
    ) -> shapes.Accepted:
        """Hands in a text. In an external knowledge base Dify takes it, and it means nothing."""
        body = {
            "name": name,
            "text": text,
            "indexing_technique": indexing_technique,
            "process_rule": process_rule,
        }
        path = f"/datasets/{dataset_id}/document/create-by-text"
        return self._call("POST", path, json=body).read(shapes.Accepted)

    def create_document_by_file(
        self,
        dataset_id: str,
        upload: Upload,
        *,
        indexing_technique: Technique,
        process_rule: Mapping[str, Any] = AUTOMATIC,
    ) -> shapes.Accepted:
        """Hands in a file; check its kind and size first, for Dify refuses without saying why."""
        data = {"indexing_technique": indexing_technique, "process_rule": process_rule}
        fields = {"data": msgspec.json.encode(data).decode()}
        path = f"/datasets/{dataset_id}/document/create-by-file"
        return self._call("POST", path, fields=fields, upload=upload).read(shapes.Accepted)

    def update_document_by_text(
        self, dataset_id: str, document_id: str, *, name: str, text: str
    ) -> shapes.Accepted:
        """Puts another text in a document's place, which is indexed anew."""
        path = f"/datasets/{dataset_id}/documents/{document_id}/update-by-text"
        return self._call("POST", path, json={"name": name, "text": text}).read(shapes.Accepted)

    def update_document_by_file(
        self, dataset_id: str, document_id: str, upload: Upload
    ) -> shapes.Accepted:
        """Puts another file in a document's place, which is indexed anew."""
        path = f"/datasets/{dataset_id}/documents/{document_id}"
        try:
            answer = self._call("PATCH", path, upload=upload)
        except Unsupported:
            # Older versions have the call under this name alone.
            answer = self._call("POST", f"{path}/update-by-file", upload=upload)
        return answer.read(shapes.Accepted)

    def list_documents(
        self, dataset_id: str, *, page: int = 1, limit: int = PAGE_SIZE, keyword: str = ""
    ) -> shapes.Page[shapes.Document]:
        params = {"page": page, "limit": limit} | ({"keyword": keyword} if keyword else {})
        answer = self._call("GET", f"/datasets/{dataset_id}/documents", params=params)
        return answer.read(shapes.Page[shapes.Document])

    def documents(self, dataset_id: str) -> Iterator[shapes.Document]:
        """All documents of a knowledge base, a page at a time."""
        number, more = 1, True
        while more:
            page = self.list_documents(dataset_id, page=number)
            yield from page.data
            number, more = number + 1, page.has_more

    def get_document(self, dataset_id: str, document_id: str) -> shapes.DocumentDetail:
        answer = self._call("GET", f"/datasets/{dataset_id}/documents/{document_id}")
        return answer.read(shapes.DocumentDetail)

    def delete_document(self, dataset_id: str, document_id: str) -> None:
        self._call("DELETE", f"/datasets/{dataset_id}/documents/{document_id}")

    def set_document_status(
        self, dataset_id: str, document_ids: Sequence[str], action: shapes.StatusAction
    ) -> None:
        """Enables, disables, archives or unarchives documents.

        Raises:
            StillProcessing: an earlier change is not done; try again in about a second.
        """
        path = f"/datasets/{dataset_id}/documents/status/{action}"
        self._call("PATCH", path, json={"document_ids": list(document_ids)})

    def indexing_status(self, dataset_id: str, batch: str) -> list[shapes.IndexingStatus]:
        """How far the documents of a batch are."""
        path = f"/datasets/{dataset_id}/documents/{batch}/indexing-status"
        return self._call("GET", path).read(shapes.Listed[shapes.IndexingStatus]).data

    def segments(self, dataset_id: str, document_id: str) -> Iterator[shapes.Segment]:
        """All pieces of a document in their order, a page at a time."""
        path = f"/datasets/{dataset_id}/documents/{document_id}/segments"
        number, more = 1, True
        while more:
            params = {"page": number, "limit": PAGE_SIZE}
            page = self._call("GET", path, params=params).read(shapes.Page[shapes.Segment])
            yield from page.data
            number, more = number + 1, page.has_more

    def count_segments(self, dataset_id: str, document_id: str) -> int:
        path = f"/datasets/{dataset_id}/documents/{document_id}/segments"
        answer = self._call("GET", path, params={"page": 1, "limit": 1})
        return answer.read(shapes.Page[msgspec.Raw]).total

    def retrieve(
        self, dataset_id: str, query: str, retrieval_model: shapes.RetrievalModel | None = None
    ) -> list[shapes.Hit]:
        """What a query of 250 characters at most finds.

        Of an external knowledge base it never asks the source: ``ConsoleApi.external_hits`` does.

        Args:
            retrieval_model: in place of the knowledge base's own.
        """
        body = {"query": query, **_given(retrieval_model=retrieval_model)}
        return (
            self._call("POST", f"/datasets/{dataset_id}/retrieve", json=body)
            .read(shapes.Hits)
            .records
        )

    # -- metadata ----------------------------------------------------------------------------

    def metadata(self, dataset_id: str) -> shapes.MetadataFields:
        answer = self._call("GET", f"/datasets/{dataset_id}/metadata")
        return answer.read(shapes.MetadataFields)

    def create_metadata(
        self, dataset_id: str, name: str, kind: shapes.MetadataType
    ) -> shapes.MetadataField:
        """Makes a field. A name that is taken is ``Refused``, without saying so."""
        body = {"type": kind, "name": name}
        answer = self._call("POST", f"/datasets/{dataset_id}/metadata", json=body)
        return answer.read(shapes.MetadataField)

    def rename_metadata(self, dataset_id: str, metadata_id: str, name: str) -> shapes.MetadataField:
        path = f"/datasets/{dataset_id}/metadata/{metadata_id}"
        return self._call("PATCH", path, json={"name": name}).read(shapes.MetadataField)

    def delete_metadata(self, dataset_id: str, metadata_id: str) -> None:
        self._call("DELETE", f"/datasets/{dataset_id}/metadata/{metadata_id}")

    def set_metadata(
        self,
        dataset_id: str,
        values: Mapping[str, Sequence[shapes.MetadataValue]],
        *,
        partial: bool = True,
    ) -> None:
        """Sets values of documents, by document id.

        Args:
            partial: whether other values of theirs stay.
        """
        how = {"partial_update": True} if partial else {}
        body = {
            "operation_data": [
                {
                    "document_id": document,
                    "metadata_list": [msgspec.to_builtins(value) for value in theirs],
                    **how,
                }
                for document, theirs in values.items()
            ]
        }
        self._call("POST", f"/datasets/{dataset_id}/documents/metadata", json=body)

    # -- tags and models ---------------------------------------------------------------------

    def tags(self) -> list[shapes.Tag]:
        return self._call("GET", "/datasets/tags").read(list[shapes.Tag])

    def create_tag(self, name: str) -> shapes.Tag:
        return self._call("POST", "/datasets/tags", json={"name": name}).read(shapes.Tag)

    def dataset_tags(self, dataset_id: str) -> list[shapes.Tag]:
        answer = self._call("GET", f"/datasets/{dataset_id}/tags")
        return answer.read(shapes.Listed[shapes.Tag]).data

    def bind_tags(self, dataset_id: str, tag_ids: Sequence[str]) -> None:
        body = {"tag_ids": list(tag_ids), "target_id": dataset_id}
        self._call("POST", "/datasets/tags/binding", json=body)

    def unbind_tags(self, dataset_id: str, tag_ids: Sequence[str]) -> None:
        body = {"tag_ids": list(tag_ids), "target_id": dataset_id}
        self._call("POST", "/datasets/tags/unbinding", json=body)

    def embedding_models(self) -> list[shapes.Provider]:
        """What ``high_quality`` can be indexed with; empty if the workspace has no such model."""
        path = "/workspaces/current/models/model-types/text-embedding"
        return self._call("GET", path).read(shapes.Listed[shapes.Provider]).data


def _given(**values: Any) -> dict[str, Any]:
    """Those that are neither None nor empty, as JSON has them."""
    return {k: msgspec.to_builtins(v) for k, v in values.items() if v not in (None, "")}
