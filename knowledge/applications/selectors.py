"""Reads of apps; each runs inside the caller's scope."""

import difflib
from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import QuerySet

from knowledge.applications.spec import AppSpec, bases_of, read_spec
from knowledge.models import App, AppUsage, AppVersion, KnowledgeBase
from portal.core.errors import NotFound


def get_app(reference: UUID | str, among: QuerySet[App] | None = None) -> App:
    """One app, by its id or by its short name.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = App.objects.all() if among is None else among
    app_id = reference if isinstance(reference, UUID) else _id(reference)
    app = found.filter(slug=reference) if app_id is None else found.filter(pk=app_id)
    one = app.first()
    if one is None:
        raise NotFound("There is no such app.")
    return one


def _id(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None


def versions(app: App) -> QuerySet[AppVersion]:
    """An app's versions, newest first."""
    return AppVersion.objects.filter(app_id=app.pk).select_related("created_by")


def get_version(app: App, number: int) -> AppVersion:
    """One version.

    Raises:
        NotFound: none.
    """
    found = versions(app).filter(number=number).first()
    if found is None:
        raise NotFound("There is no such version.")
    return found


def newest_spec(app: App) -> AppSpec:
    """What the newest version says, published or not."""
    return read_spec(get_version(app, app.latest).spec)


def searched_bases(spec: AppSpec) -> QuerySet[KnowledgeBase]:
    """The knowledge bases of the scope's tenant that a version searches, by name."""
    return KnowledgeBase.objects.filter(pk__in=bases_of(spec)).order_by("name")


def published_version(app: App) -> AppVersion:
    """What callers get.

    Raises:
        NotFound: no version is published.
    """
    if not app.published:
        raise NotFound("There is no such app.")
    return get_version(app, app.published)


def diff(app: App, before: int, after: int) -> Iterator[str]:
    """What one version says and another does not, as a unified diff of their documents.

    Raises:
        NotFound: no such version.
    """
    old, new = (_lines(get_version(app, number)) for number in (before, after))
    return difflib.unified_diff(old, new, f"version {before}", f"version {after}", lineterm="")


def _lines(version: AppVersion) -> list[str]:
    text = msgspec.json.format(msgspec.json.encode(version.spec, order="sorted"), indent=2).decode()
    # Texts of several lines are compared line by line.
    return text.replace("\\n", "\n").splitlines()


def apps_using(knowledge_base_id: UUID) -> list[App]:
    """The published apps that search a knowledge base."""
    return [
        app
        for app in App.objects.filter(published__gt=0)
        if knowledge_base_id in bases_of(read_spec(published_version(app).spec))
    ]


def usage(app: App, begin: date, end: date) -> list[dict[str, Any]]:
    """An app's use from one day in UTC to another, both counted in, a row for each with any."""
    found = AppUsage.objects.filter(app_id=app.pk, day__range=(begin, end)).order_by("day")
    return list(found.values(*USAGE_FIELDS))


USAGE_FIELDS = (
    "day",
    "calls",
    "failures",
    "prompt_tokens",
    "completion_tokens",
    "likes",
    "dislikes",
)
