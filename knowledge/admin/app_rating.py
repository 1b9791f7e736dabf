"""Rating an answer on the page where an app is tried.

The answer belongs to the browser session's own key, which opens models and apps alone. So the page
says who asks by its session, and which key asked by the key itself.
"""

import json
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse

from knowledge.applications.feedback import rate_message
from knowledge.models import App
from portal.core.actors import ANONYMOUS, Context
from portal.core.errors import Invalid, PortalError
from portal.core.pages import context_of, in_words
from tenants.errors import InvalidApiKey
from tenants.identity.keys import authenticate_api_key

_MOST_BYTES = 1000


def rate(request: HttpRequest, app: App, message_id: UUID) -> HttpResponse:
    """Notes a rating: ``{"rating": 1}``, -1, or 0 to take it back."""
    page = context_of(request)
    base = Context(
        actor=ANONYMOUS,
        address=page.address,
        request_id=page.request_id,
        client_request_id=page.client_request_id,
    )
    try:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        caller = authenticate_api_key(token, base=base, session_key=request.session.session_key)
        if caller.tenant_id != page.tenant_id:
            raise InvalidApiKey
        rated = rate_message(
            context=caller, app=app.pk, message_id=message_id, rating=_rating(request.body)
        )
    except PortalError as refusal:
        body = {"detail": in_words(refusal.message), "code": refusal.error_code}
        return JsonResponse(body, status=refusal.error_status)
    return JsonResponse({"rating": rated.rating})


def _rating(body: bytes) -> int:
    try:
        sent = json.loads(body[:_MOST_BYTES])
    except ValueError:
        sent = None
    rating = sent.get("rating") if isinstance(sent, dict) else None
    if not isinstance(rating, int) or isinstance(rating, bool):
        raise Invalid("'rating' must be 1, 0 or -1.", param="rating")
    return rating
