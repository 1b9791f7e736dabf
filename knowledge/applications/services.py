"""Verbs of apps: made, changed by new versions, published, deleted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError, transaction

from knowledge.applications.dify.deployed import check_publishable, follow
from knowledge.applications.events import AppEvent
from knowledge.applications.selectors import get_app, get_version
from knowledge.applications.spec import AppSpec, bases_of, check_spec, document_of, read_spec
from knowledge.models import App, AppMode, AppVersion, KnowledgeBase
from knowledge.models.apps import MOST_KEEP_DAYS, MOST_SLUG_CHARS
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid
from portal.core.tenancy import tenant_scope
from tenants.models import ApiKey
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_KEYS: Final = 50
_SLUG: Final = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{MOST_SLUG_CHARS - 2}}}[a-z0-9])?")


def create_app(
    *,
    context: Context,
    slug: str,
    name: str,
    spec: AppSpec | Mapping[str, Any],
    mode: str = AppMode.CHAT,
    note: str = "",
    **settings: Any,
) -> App:
    """Makes an app with its first version, which is not published.

    Args:
        slug: what callers name it by: 1 to 40 of a-z, 0-9 and hyphens.
        settings: of ``edit_app``.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
        Conflict: the short name is taken.
    """
    require(context, Action.APP_EDIT)
    tenant_id = require_tenant(context)
    app = App(
        tenant_id=tenant_id,
        created_by_id=context.user_id,
        slug=_slug(slug),
        mode=_mode(mode),
        latest=1,
    )
    with tenant_scope(context):
        _apply(app, {"name": name, **settings})
        version = _version(context, app, spec, note)
        with intent_about(AppEvent.CREATE, app):
            try:
                with transaction.atomic():
                    app.save(force_insert=True)
            except IntegrityError:
                raise Conflict(
                    f"The short name '{app.slug}' is taken.", code="app_slug_taken", param="slug"
                ) from None
            version.save(force_insert=True)
    return app


def edit_app(*, context: Context, app_id: UUID, **changes: Any) -> App:
    """Changes what is given of what all versions share, and leaves the rest.

    Args:
        changes: ``name``, ``description``, ``keep_days`` (1 to 365) and ``allowed_keys`` (ids of
            API keys of the tenant, empty for all).

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
        Invalid: naming the field that is wrong.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = _locked(app_id)
        _apply(app, changes)
        with intent_about(AppEvent.EDIT, app):
            app.save(update_fields=list(changes))
        follow(app)
    return app


def add_version(
    *, context: Context, app_id: UUID, spec: AppSpec | Mapping[str, Any], note: str = ""
) -> AppVersion:
    """Adds a draft: a version that nobody gets before it is published.

    The same specification as the newest version's adds none.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
        Invalid: naming the field that is wrong.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = _locked(app_id)
        newest = get_version(app, app.latest)
        app.latest += 1
        version = _version(context, app, spec, note)
        if version.spec == newest.spec:
            return newest
        with intent_about(AppEvent.ADD_VERSION, app, version=version.number):
            app.save(update_fields=["latest"])
            version.save(force_insert=True)
    return version


def publish_app(*, context: Context, app_id: UUID, number: int | None = None) -> App:
    """Gives callers a version from their next call on: the newest, or an earlier one again.

    What is under way goes on with the version that it began with.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app, or no such version of it.
        Invalid: what the version needs is not there any more, such as a knowledge base.
        Unrenderable: the app runs in Dify, which has no words for the version.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = _locked(app_id)
        version = get_version(app, app.latest if number is None else number)
        spec = read_spec(version.spec)
        _hold_bases(spec)
        check_spec(spec, AppMode(app.mode))
        check_publishable(app, spec)
        app.published = version.number
        with intent_about(AppEvent.PUBLISH, app, version=version.number):
            app.save(update_fields=["published"])
        follow(app)
    return app


def withdraw_app(*, context: Context, app_id: UUID) -> App:
    """Publishes no version any more: callers are told that there is no such app.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = _locked(app_id)
        app.published = 0
        with intent_about(AppEvent.WITHDRAW, app):
            app.save(update_fields=["published"])
        follow(app)
    return app


def delete_app(*, context: Context, app_id: UUID) -> None:
    """Deletes an app with its versions, its usage and all that was said to it.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such app here.
        Conflict: it is published.
    """
    require(context, Action.APP_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        app = _locked(app_id)
        if app.published:
            raise Conflict(
                "The app is published, and callers use it: withdraw it first.",
                code="app_published",
            )
        follow(app)
        with intent_about(AppEvent.DELETE, app):
            App.objects.filter(pk=app.pk).delete()


def _locked(app_id: UUID) -> App:
    return get_app(app_id, App.objects.select_for_update())


def _version(
    context: Context, app: App, spec: AppSpec | Mapping[str, Any], note: str
) -> AppVersion:
    read = spec if isinstance(spec, AppSpec) else read_spec(spec)
    check_spec(read, AppMode(app.mode))
    return AppVersion(
        tenant_id=app.tenant_id,
        app=app,
        number=app.latest,
        note=clean_text(note, "note", most=200),
        spec=document_of(read),
        created_by_id=context.user_id,
    )


def _hold_bases(spec: AppSpec) -> None:
    """Until the scope ends nobody deletes what a version that is being published searches."""
    ids = sorted(bases_of(spec))
    list(KnowledgeBase.objects.select_for_update().filter(pk__in=ids).order_by("pk"))


# -- what may be set ---------------------------------------------------------------------------


def _apply(app: App, changes: Mapping[str, Any]) -> None:
    for field, value in changes.items():
        check = _CHECKS.get(field)
        if check is None:
            raise Invalid(f"'{field}' can't be set.", param=field)
        setattr(app, field, check(value))


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise Invalid(
            f"'slug' must have 1 to {MOST_SLUG_CHARS} of a-z, 0-9 and hyphens, none at an end.",
            param="slug",
        )
    try:
        UUID(value)
    except ValueError:
        return value
    raise Invalid("'slug' must not look like an id.", param="slug")


def _mode(value: str) -> str:
    if value not in AppMode.values:
        raise Invalid(f"'mode' must be one of {', '.join(AppMode.values)}.", param="mode")
    return value


def _name(value: str) -> str:
    return clean_text(value, "name", most=80, least=1)


def _description(value: str) -> str:
    return clean_text(value, "description", most=400)


def _keep_days(value: int) -> int:
    if not 1 <= value <= MOST_KEEP_DAYS:
        raise Invalid(f"'keep_days' must be from 1 to {MOST_KEEP_DAYS}.", param="keep_days")
    return value


def _allowed_keys(value: Sequence[UUID]) -> list[UUID]:
    ids = sorted(set(value))
    if len(ids) > MOST_KEYS:
        raise Invalid(f"At most {MOST_KEYS} API keys can be listed.", param="allowed_keys")
    if ApiKey.objects.filter(pk__in=ids).count() < len(ids):
        raise Invalid("There is no such API key.", param="allowed_keys")
    return ids


_CHECKS: Final[Mapping[str, Any]] = {
    "name": _name,
    "description": _description,
    "keep_days": _keep_days,
    "allowed_keys": _allowed_keys,
}
