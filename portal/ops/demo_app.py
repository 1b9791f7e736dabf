"""The demo's knowledge base and the app that answers from it."""

from pathlib import Path
from typing import Final

from knowledge.applications.services import create_app, publish_app
from knowledge.models import App, KnowledgeBase
from knowledge.services import add_file, create_knowledge_base
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope

SLUG: Final = "handbook"
_NAME: Final = "Handbook"
_DOCUMENTS: Final = Path(__file__).parent / "handbook"
# The shipped model is tiny: told more than one passage, or what to do with it, it answers worse.
_PASSAGES: Final = 1
_INSTRUCTIONS: Final = "{{context}}"
_PROMPT: Final = "{{query}}"


def make_handbook_app(context: Context, model: str) -> str:
    """Makes what is missing of it, and gives the app's short name.

    The documents are read and indexed by the io worker, once it is up.
    """
    with tenant_scope(context):
        if App.objects.filter(slug=SLUG).exists():
            return SLUG
        base = KnowledgeBase.objects.filter(name=_NAME).first()
    if base is None:
        base = create_knowledge_base(context=context, name=_NAME, top_k=_PASSAGES)
    for document in sorted(_DOCUMENTS.iterdir()):
        add_file(
            context=context,
            knowledge_base_id=base.pk,
            name=document.name,
            content=document.read_bytes(),
        )
    app = create_app(
        context=context,
        slug=SLUG,
        name=_NAME,
        description="Answers questions about leave, expenses and visitors.",
        spec={
            "model": model,
            "instructions": _INSTRUCTIONS,
            "prompt": _PROMPT,
            "knowledge": [{"knowledge_base_id": str(base.pk)}],
            "sampling": {"temperature": 0.0, "max_tokens": 120},
            "opening": "Ask me about leave, expenses, visitors and opening hours.",
        },
    )
    publish_app(context=context, app_id=app.pk)
    return SLUG
