"""Jobs on the management API: submitted, followed, answered, cancelled."""

import json
import re
from typing import Any, Final

from django.http import HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.response import Response

from inference import selectors
from inference.api import job_shapes, serializers
from inference.jobs.cancelling import cancel_job
from inference.jobs.events import Position, is_over
from inference.jobs.results import read_result, visible_job
from inference.jobs.streams import EventStream
from inference.jobs.submission import MOST_KEY_CHARS, JobRequest, needs_api_key, submit
from inference.models import JobState, Priority
from portal.core.actors import ActorType
from portal.core.api import PortalView
from portal.core.errors import Invalid
from portal.core.rest import api_context, own_tenant, parse_id
from tenants.permissions import Action

_STATES: Final = {state.name.lower(): state for state in JobState}
_PRIORITIES: Final = {priority.name.lower(): priority for priority in Priority}
_KINDS: Final = re.compile(r"[a-z_]{1,16}")
_IDEMPOTENCY_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MOST_KEY_CHARS}}}")


class JobsView(PortalView):
    """The tenant's jobs, and where business systems submit theirs."""

    actions = {"GET": Action.JOB_READ, "POST": Action.JOB_SUBMIT}

    @extend_schema(
        operation_id="jobs_list",
        parameters=[
            OpenApiParameter("state", enum=list(_STATES)),
            OpenApiParameter("kind", description="Such as `chat` or `job`."),
            OpenApiParameter("priority", enum=list(_PRIORITIES)),
            OpenApiParameter("api_key_id", description="Jobs of this key alone."),
            OpenApiParameter("request_id", description="The portal's id of the request."),
        ],
        responses=serializers.JobSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        own_tenant(request)
        found = selectors.jobs()
        query = request.query_params
        for name, values in (("state", _STATES), ("priority", _PRIORITIES)):
            if name in query:
                if query[name] not in values:
                    raise Invalid(f"'{name}' is no {name} of a job.", param=name)
                found = found.filter(**{name: values[query[name]]})
        if "kind" in query:
            if not _KINDS.fullmatch(query["kind"]):
                raise Invalid("'kind' is no kind of job.", param="kind")
            found = found.filter(kind=query["kind"])
        if "api_key_id" in query:
            found = found.filter(api_key_id=parse_id(query["api_key_id"], "api_key_id"))
        if "request_id" in query:
            found = found.filter(request_id=query["request_id"])
        return self.page(request, found, serializers.JobSerializer)

    @extend_schema(
        operation_id="jobs_submit",
        request=job_shapes.NewJobSerializer,
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                location=OpenApiParameter.HEADER,
                description="The caller's own name for this submission: the same name with the "
                "same body is the same job, for at least 24 hours.",
            )
        ],
        responses={202: serializers.JobDetailSerializer},
    )
    def post(self, request: Request) -> Response:
        wanted = _job_request(request)
        (outcome,) = submit(context=api_context(request), requests=[wanted])
        if outcome.error is not None:
            return self.refuse(outcome.error)
        assert outcome.job_id is not None
        shown = serializers.JobDetailSerializer(selectors.get_job(outcome.job_id)).data
        headers = {"Location": f"{request.path}/{outcome.job_id}"}
        if outcome.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(shown, 202, headers=headers)

    def permission_denied(
        self, request: Request, message: str | None = None, code: str | None = None
    ) -> Any:
        context = api_context(request)
        if request.method == "POST" and context.actor.type == ActorType.USER:
            raise needs_api_key()
        super().permission_denied(request, message, code)


def _job_request(request: Request) -> JobRequest:
    if not isinstance(request.data, dict):
        raise Invalid("Send the job as a JSON object.")
    known = job_shapes.JobOptionsSerializer(data=request.data)
    known.is_valid(raise_exception=True)
    options = known.validated_data
    body = {name: value for name, value in request.data.items() if name not in known.fields}
    return JobRequest(
        json.dumps(body).encode(),
        priority=_PRIORITIES[options["priority"]],
        wait_seconds=options["max_wait"],
        result_seconds=options["result_ttl"],
        metadata=options["metadata"],
        idempotency_key=_idempotency_key(request),
        callback_url=options["callback_url"],
        endpoint=options["endpoint"],
    )


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise Invalid(
            f"'Idempotency-Key' must have 1 to {MOST_KEY_CHARS} printable ASCII characters without "
            "spaces, such as a UUID.",
            param="Idempotency-Key",
        )
    return key


class JobView(PortalView):
    """One job with its timeline; an API key without ``jobs:read`` sees those that it submitted."""

    actions = {"GET": (Action.JOB_READ, Action.JOB_SUBMIT)}

    @extend_schema(operation_id="jobs_read", responses=serializers.JobDetailSerializer)
    def get(self, request: Request, job_id: str) -> Response:
        own_tenant(request)
        job = visible_job(api_context(request), parse_id(job_id))
        return Response(serializers.JobDetailSerializer(job).data)


class JobResultView(PortalView):
    """A job's answer, for the API key that submitted it."""

    actions = {"GET": Action.JOB_SUBMIT}

    @extend_schema(
        operation_id="jobs_result",
        responses={
            200: job_shapes.RESULT,
            404: OpenApiResponse(description="No such job of this key, or not ended yet."),
            409: OpenApiResponse(description="The job has ended without a result."),
            410: OpenApiResponse(description="The result is not kept any more."),
        },
    )
    def get(self, request: Request, job_id: str) -> HttpResponse:
        body = read_result(context=api_context(request), job_id=parse_id(job_id))
        return HttpResponse(
            body, content_type="application/json", headers={"Cache-Control": "no-store"}
        )


class CancelJobView(PortalView):
    """Ends a job: its submitter's, or any of the tenant for an owner."""

    actions = {"POST": (Action.JOB_CANCEL, Action.JOB_SUBMIT)}

    @extend_schema(
        operation_id="jobs_cancel", request=None, responses={202: serializers.JobDetailSerializer}
    )
    def post(self, request: Request, job_id: str) -> Response:
        own_tenant(request)
        job = cancel_job(context=api_context(request), job_id=parse_id(job_id))
        return Response(serializers.JobDetailSerializer(job).data, 202)


class _AnyAccept(BaseContentNegotiation):
    """Clients of event streams accept nothing else; refusals are JSON all the same."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> Any:
        return renderers[0], renderers[0].media_type


class JobEventsView(PortalView):
    """A job's events, until it has ended."""

    actions = {"GET": (Action.JOB_READ, Action.JOB_SUBMIT)}
    content_negotiation_class = _AnyAccept

    @extend_schema(
        operation_id="jobs_events",
        parameters=[
            OpenApiParameter(
                "Last-Event-ID",
                location=OpenApiParameter.HEADER,
                description="The last event that was seen; what came after it is told.",
            )
        ],
        responses={
            (200, "text/event-stream"): OpenApiTypes.STR,
            204: OpenApiResponse(description="The client has seen the job's end."),
        },
    )
    def get(self, request: Request, job_id: str) -> HttpResponse | StreamingHttpResponse:
        tenant_id = own_tenant(request)
        job = visible_job(api_context(request), parse_id(job_id))
        seen = Position.parse(request.headers.get("Last-Event-ID", ""))
        if is_over(seen):
            # This tells a browser not to come again.
            return HttpResponse(status=204)
        stream = EventStream(tenant_id, job.pk, seen)
        return StreamingHttpResponse(
            stream,
            content_type="text/event-stream; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
