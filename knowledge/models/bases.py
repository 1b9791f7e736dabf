"""Knowledge bases: named sets of documents, and how they are searched."""

from typing import Final

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from knowledge.models.connections import Connection
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User

MOST_NAME_CHARS: Final = 40
"""As in Dify, where the same knowledge base may stand."""

MOST_TOP_K: Final = 50
DEFAULT_TEMPLATE: Final = (
    "Answer the question from the context. If the context does not hold the answer, say so.\n\n"
    "Context:\n{{context}}\n\nQuestion: {{query}}"
)


class Method(models.TextChoices):
    """How passages are found; see ``knowledge.retrieval``."""

    SEMANTIC = "semantic", _("Meaning")
    FULL_TEXT = "full_text", _("Full text")
    HYBRID = "hybrid", _("Meaning and full text")
    KEYWORD = "keyword", _("All keywords")


class KnowledgeBase(IdModel, TenantModel):
    """Documents of one tenant that are searched together.

    ``embedding_model`` and ``rerank_model`` are names that callers put into ``model``; empty for
    none. What both cost is charged to ``api_key``, the portal's own in this tenant. It stands in
    the workspace of ``connection`` too, if it has one.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    name = models.CharField(_("name"), max_length=MOST_NAME_CHARS)
    description = models.CharField(_("description"), max_length=400, blank=True)
    method = models.CharField(
        _("search by"), max_length=12, choices=Method, default=Method.FULL_TEXT
    )
    top_k = models.PositiveSmallIntegerField(_("passages"), default=5)
    score_threshold = models.FloatField(_("least score"), null=True)
    embedding_model = models.CharField(_("embedding model"), max_length=80, blank=True)
    rerank_model = models.CharField(_("reranking model"), max_length=80, blank=True)
    prompt_template = models.TextField(_("prompt template"), default=DEFAULT_TEMPLATE)
    connection = models.ForeignKey(
        Connection, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("knowledge base")
        verbose_name_plural = _("knowledge bases")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="knowledge_base_in_tenant"),
            models.UniqueConstraint(fields=["tenant", "name"], name="one_knowledge_base_a_name"),
            models.CheckConstraint(
                condition=Q(top_k__gte=1, top_k__lte=MOST_TOP_K), name="knowledge_base_top_k"
            ),
            models.CheckConstraint(
                condition=Q(score_threshold=None)
                | Q(score_threshold__gte=0, score_threshold__lte=1),
                name="knowledge_base_threshold",
            ),
        ]

    def __str__(self) -> str:
        return self.name
