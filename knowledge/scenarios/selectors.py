"""Reads of evaluations; each runs inside the caller's scope."""

from uuid import UUID

from django.db.models import QuerySet

from knowledge.models import Evaluation
from portal.core.errors import NotFound


def evaluations(scenario: str | None = None) -> QuerySet[Evaluation]:
    """The evaluations of the scope's tenant, newest first."""
    found = Evaluation.objects.order_by("-id")
    return found if scenario is None else found.filter(scenario=scenario)


def get_evaluation(evaluation_id: UUID) -> Evaluation:
    """One evaluation.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = Evaluation.objects.filter(pk=evaluation_id).first()
    if found is None:
        raise NotFound("There is no such evaluation.")
    return found
