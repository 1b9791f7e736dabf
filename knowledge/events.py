"""What knowledge bases tell the audit trail."""

from enum import StrEnum


class KnowledgeEvent(StrEnum):
    """Names of events; they are stored, so they never change."""

    CREATE = "knowledge.create"
    EDIT = "knowledge.edit"
    DELETE = "knowledge.delete"
    ADD_DOCUMENT = "knowledge.add_document"
    ADD_VERSION = "knowledge.add_version"
    EDIT_DOCUMENT = "knowledge.edit_document"
    INDEX_DOCUMENT = "knowledge.index_document"
    DELETE_DOCUMENT = "knowledge.delete_document"
