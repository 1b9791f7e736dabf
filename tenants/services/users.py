"""People: accounts and platform roles."""

import secrets
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.utils import timezone

from audit.services import intent
from portal.core.actors import Context, PlatformRole
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import bare_scope, platform_scope
from tenants.errors import SeparatedDuties
from tenants.events import TenantsEvent
from tenants.models import ApiKey, Membership, User
from tenants.permissions import Action, require
from tenants.services.checks import clean_email, clean_text
from tenants.services.inheritance import forget_inherited

_PASSWORD_BYTES: Final = 15


@dataclass(frozen=True, slots=True)
class CreatedUser:
    """An account; ``password`` is set where one was made up, and is shown once."""

    user: User
    password: str | None = field(repr=False)


def create_user(
    *,
    context: Context,
    email: str,
    full_name: str = "",
    password: str | None = None,
    platform_role: PlatformRole | None = None,
) -> CreatedUser:
    """Makes an account; without a password a random one is made and returned.

    Raises:
        Forbidden: the caller may not, or may not give platform roles.
        Invalid: no e-mail address, or a weak password.
        Conflict: there is such an account.
    """
    require(context, Action.USER_CREATE)
    if platform_role is not None:
        require(context, Action.USER_SET_ROLE)
    address = clean_email(email)
    with bare_scope(context):
        if User.objects.filter(email__iexact=address).exists():
            raise Conflict(f"There is already a user {address}.", param="email")
        return new_account(
            email=address, full_name=full_name, password=password, platform_role=platform_role
        )


def new_account(
    *,
    email: str,
    full_name: str,
    password: str | None = None,
    platform_role: PlatformRole | None = None,
) -> CreatedUser:
    """The account itself, in the open scope; for services that have checked who asks."""
    user = User(
        email=email,
        full_name=clean_text(full_name, "full_name", most=120),
        platform_role=platform_role,
    )
    chosen = password or secrets.token_urlsafe(_PASSWORD_BYTES)
    if password is not None:
        check_password_strength(password, user)
    user.set_password(chosen)
    with intent(
        TenantsEvent.USER_CREATE,
        object_type="tenants.user",
        object_id=user.id,
        object_label=email,
    ):
        user.save(force_insert=True)
    return CreatedUser(user, None if password else chosen)


def check_password_strength(password: str, user: User) -> None:
    """Goes on only with a password that the validators accept.

    Raises:
        Invalid: with their reasons.
    """
    if "\x00" in password:
        raise Invalid("'password' holds control characters.", param="password")
    try:
        validate_password(password, user)
    except ValidationError as fault:
        raise Invalid(" ".join(fault.messages), param="password") from None


def deactivate_user(*, context: Context, user_id: UUID, reason: str) -> User:
    """Shuts an account out: sessions and API keys stop working at the next request.

    Raises:
        Forbidden: the caller may not, or means the own account.
        NotFound: no such user.
    """
    require(context, Action.USER_DEACTIVATE)
    _refuse_self(context, user_id)
    why = clean_text(reason, "reason", most=200, least=1)
    return _set_active(context, user_id, active=False, reason=why)


def reactivate_user(*, context: Context, user_id: UUID, reason: str) -> User:
    """Lets an account in again. Keys that were revoked stay revoked.

    Raises:
        Forbidden: the caller may not, or means the own account.
        NotFound: no such user.
    """
    require(context, Action.USER_DEACTIVATE)
    _refuse_self(context, user_id)
    why = clean_text(reason, "reason", most=200, least=1)
    return _set_active(context, user_id, active=True, reason=why)


def _set_active(context: Context, user_id: UUID, *, active: bool, reason: str) -> User:
    event = TenantsEvent.USER_REACTIVATE if active else TenantsEvent.USER_DEACTIVATE
    with bare_scope(context):
        user = _locked(user_id)
        with intent(
            event,
            object_type="tenants.user",
            object_id=user.id,
            object_label=user.email,
            reason=reason,
        ):
            user.is_active = active
            user.save(update_fields=["is_active"])
    return user


def set_platform_role(
    *, context: Context, user_id: UUID, platform_role: PlatformRole | None
) -> User:
    """Makes a user one of the three administrators, or none.

    Raises:
        Forbidden: the caller may not, or means the own account.
        NotFound: no such user.
        SeparatedDuties: the user is a member of a tenant.
    """
    require(context, Action.USER_SET_ROLE)
    _refuse_self(context, user_id)
    with platform_scope(context, reason="a platform role is set"):
        user = _locked(user_id)
        if platform_role is not None and Membership.objects.filter(user=user).exists():
            raise SeparatedDuties(
                "A member of a tenant can't administer the platform: remove the memberships first."
            )
        with intent(
            TenantsEvent.USER_SET_ROLE,
            object_type="tenants.user",
            object_id=user.id,
            object_label=user.email,
            detail={"platform_role": platform_role},
        ):
            user.platform_role = platform_role
            user.save(update_fields=["platform_role"])
    return user


def reset_password(*, context: Context, user_id: UUID) -> CreatedUser:
    """Gives an account a new random password, which ends its sessions.

    Raises:
        Forbidden: the caller may not, or means the own account.
        NotFound: no such user.
    """
    require(context, Action.USER_RESET_PASSWORD)
    _refuse_self(context, user_id)
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    with bare_scope(context):
        user = _locked(user_id)
        user.set_password(password)
        with intent(
            TenantsEvent.USER_RESET_PASSWORD,
            object_type="tenants.user",
            object_id=user.id,
            object_label=user.email,
        ):
            user.save(update_fields=["password"])
    return CreatedUser(user, password)


def revoke_keys_of(user_id: UUID, reason: str) -> int:
    """Revokes the user's live keys in the open scope; returns how many there were."""
    live = ApiKey.objects.filter(user_id=user_id, revoked_at=None)
    count = live.update(revoked_at=timezone.now(), revoked_reason=reason)
    forget_inherited(Q(user_id=user_id, revoked_at__isnull=False))
    return count


def _refuse_self(context: Context, user_id: UUID) -> None:
    if context.user_id == user_id:
        raise Forbidden("You can't do this to your own account.", code="own_account")


def _locked(user_id: UUID) -> User:
    user = User.objects.select_for_update().filter(pk=user_id).first()
    if user is None:
        raise NotFound("There is no such user.")
    return user
