from knowledge.services.bases import (
    create_knowledge_base,
    delete_knowledge_base,
    edit_knowledge_base,
)
from knowledge.services.documents import (
    add_file,
    add_text,
    delete_document,
    edit_document,
    index_again,
)

__all__ = [
    "add_file",
    "add_text",
    "create_knowledge_base",
    "delete_document",
    "delete_knowledge_base",
    "edit_document",
    "edit_knowledge_base",
    "index_again",
]
