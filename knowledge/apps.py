from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class KnowledgeConfig(AppConfig):
    name = "knowledge"
    verbose_name = _("Knowledge")

    def ready(self) -> None:
        from knowledge import (
            checks,  # noqa: F401  (registers the system check)
            closing,
        )
        from knowledge.applications.dify.kind import AppKind
        from knowledge.sync.documents import DocumentKind
        from knowledge.sync.kinds import register_kind
        from knowledge.sync.knowledge_bases import KnowledgeBaseKind

        closing.register()
        register_kind(KnowledgeBaseKind())
        register_kind(DocumentKind())
        register_kind(AppKind())
