"""Apps made as the product makes them."""

from typing import Any

from knowledge.applications import services
from knowledge.models import App, KnowledgeBase
from tests.factories import Organisation, unique

GROUNDED = "Answer from this:\n{{context}}\n\nQuestion: {{query}}"


def make_app(
    tenant: Organisation,
    model: str,
    *,
    base: KnowledgeBase | None = None,
    published: bool = True,
    mode: str = "chat",
    settings: dict[str, Any] | None = None,
    **spec: Any,
) -> App:
    """An app of the tenant, published unless not wanted; with a base, it answers from that."""
    document: dict[str, Any] = {"model": model, "prompt": "{{query}}", **spec}
    if base is not None:
        document.setdefault("knowledge", [{"knowledge_base_id": str(base.pk)}])
        document["prompt"] = spec.get("prompt", GROUNDED)
    context = tenant.owner.context
    app = services.create_app(
        context=context,
        slug=unique("app"),
        name=unique("App"),
        mode=mode,
        spec=document,
        **(settings or {}),
    )
    return services.publish_app(context=context, app_id=app.pk) if published else app
