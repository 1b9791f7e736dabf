"""The playground's page, and the key that its script asks for."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from inference.models import Model, Task
from portal.core.errors import PortalError
from portal.core.pages import context_of
from tenants.permissions import Action, allowed
from tenants.services.keys import create_playground_key


def _words() -> dict[str, str]:
    """What the script says; places in braces are filled there."""
    return {
        "waiting": _("Waiting for the first token…"),
        "answering": _("The model is answering…"),
        "done": _("Done. Ctrl + Enter sends the next message."),
        "not_done": _("That did not work."),
        "cleared": _("A new conversation."),
        "key_until": _("good until {time}"),
        "first_token": _("First token after {ms} ms"),
        "usage": _("{prompt} prompt tokens, {completion} completion tokens"),
        "cut": _("Cut at the longest allowed answer"),
        "stopped": _("Stopped by you"),
        "broken": _("The answer broke off. Send the message again."),
        "unreachable": _("The server can't be reached. Check your connection and try again."),
        "logged_out": _("You are logged out. Load the page again and log in."),
        "too_many": _("A limit is reached."),
        "retry_after": _("Try again in {seconds} seconds."),
        "status": _("The server answered with status {status}."),
    }


@require_GET
def playground(request: HttpRequest) -> HttpResponse:
    """The page: pick a model, write, see tokens stream."""
    context = context_of(request)
    if context.tenant_id is None or not allowed(context, Action.PLAYGROUND_USE):
        raise PermissionDenied
    page = {
        **admin.site.each_context(request),
        "title": _("Playground"),
        "is_fullwidth": "1",
        "models": Model.objects.filter(task=Task.GENERATE, deployments__enabled=True).order_by(
            "name"
        ),
        "words": _words(),
    }
    return TemplateResponse(request, "site/playground.html", page)


@require_POST
def playground_key(request: HttpRequest) -> HttpResponse:
    """A key for this browser session, good for an hour; the page keeps it in memory alone."""
    try:
        made = create_playground_key(
            context=context_of(request), session_key=request.session.session_key or ""
        )
    except PortalError as refusal:
        return JsonResponse(
            {"error": {"message": refusal.message, "code": refusal.error_code}},
            status=refusal.error_status,
        )
    expires_at = made.api_key.expires_at
    assert expires_at is not None
    return JsonResponse({"token": made.token, "expires_at": expires_at.isoformat()})
