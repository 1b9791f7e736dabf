"""Dify's External Knowledge API: ``POST {endpoint}/retrieval``.

Dify keeps the endpoint and one key for it; the key is the tenant's own, with the scope
``knowledge:read``, and ``knowledge_id`` is the id of a knowledge base. Dify waits five seconds and
wants its own shape of errors, and ``metadata`` that is never null.
"""

from typing import Any, Final
from uuid import UUID

from django.http import JsonResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from knowledge.api.serializers import ConditionSerializer
from knowledge.api.views import conditions_of
from knowledge.models.bases import MOST_TOP_K
from knowledge.retrieval import MOST_QUERY_CHARS, Passage, Question, retrieve
from portal.core.api import PortalView
from portal.core.errors import NotFound, PortalError
from portal.core.rest import api_context
from tenants.permissions import Action

_NO_SUCH_BASE: Final = 2001
"""Dify's own code for a knowledge base that does not exist."""


class _Setting(serializers.Serializer[Any]):
    top_k = serializers.IntegerField(min_value=1, max_value=MOST_TOP_K, default=5)
    score_threshold = serializers.FloatField(
        min_value=0, max_value=1, required=False, allow_null=True
    )


class _Condition(ConditionSerializer):
    """In Dify several names may share a value; each of them is a condition."""

    name = serializers.ListField(  # type: ignore[assignment]
        child=serializers.CharField(max_length=64), min_length=1, max_length=20
    )


class _Conditions(serializers.Serializer[Any]):
    logical_operator = serializers.ChoiceField(["and", "or"], default="and")
    conditions = _Condition(many=True)


class DifyQuestionSerializer(serializers.Serializer[Any]):
    """What Dify sends."""

    knowledge_id = serializers.CharField(max_length=64)
    query = serializers.CharField()
    retrieval_setting = _Setting()
    metadata_condition = _Conditions(required=False, allow_null=True)


class DifyRecordSerializer(serializers.Serializer[Any]):
    content = serializers.CharField()
    score = serializers.FloatField()
    title = serializers.CharField()
    metadata = serializers.DictField()


class DifyAnswerSerializer(serializers.Serializer[Any]):
    """What Dify reads."""

    records = DifyRecordSerializer(many=True)


class DifyRetrievalView(PortalView):
    """Serves knowledge bases to Dify, as its External Knowledge API."""

    actions = {"POST": Action.KNOWLEDGE_RETRIEVE}

    @extend_schema(
        operation_id="external_knowledge_retrieval",
        request=DifyQuestionSerializer,
        responses=DifyAnswerSerializer,
    )
    def post(self, request: Request) -> Response:
        sent = self.valid(DifyQuestionSerializer, request)
        filters = sent.get("metadata_condition")
        setting = sent["retrieval_setting"]
        found = retrieve(
            context=api_context(request),
            knowledge_base_id=_base_id(sent["knowledge_id"]),
            question=Question(
                # A longer one is a whole conversation, of which the end is asked.
                sent["query"][-MOST_QUERY_CHARS:],
                top_k=setting["top_k"],
                score_threshold=setting.get("score_threshold"),
                conditions=conditions_of(_one_by_one(filters)),
                any_of=filters is not None and filters["logical_operator"] == "or",
            ),
        )
        answer = {"records": [_record(passage) for passage in found.passages]}
        return Response(DifyAnswerSerializer(answer).data)

    def handle_exception(self, exc: Exception) -> Response:
        """The refusal as Dify shows it to its users."""
        response = super().handle_exception(exc)
        told = response.data or {}
        code = _NO_SUCH_BASE if isinstance(exc, NotFound) else told.get("code", "error")
        response.data = _told(code, told.get("detail", ""))
        response.content_type = "application/json"
        return response


def refused_key(refusal: PortalError) -> JsonResponse:
    """The answer to a key that is not valid: of all refusals, Dify heeds 403 when it is set up."""
    return JsonResponse(_told(refusal.error_code, refusal.message), status=403)


def _told(code: int | str, message: str) -> dict[str, Any]:
    return {"error_code": code, "error_msg": message}


def _base_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such knowledge base.") from None


def _one_by_one(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    if filters is None:
        return None
    split = [{**one, "name": name} for one in filters["conditions"] for name in one["name"]]
    return {**filters, "conditions": split}


def _record(passage: Passage) -> dict[str, Any]:
    return {
        "content": passage.text,
        "score": passage.score,
        "title": passage.document,
        "metadata": {
            **passage.metadata,
            "document_id": str(passage.document_id),
            "version": passage.version,
            "position": passage.position,
        },
    }
