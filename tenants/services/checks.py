"""Input rules that several services share."""

from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from portal.core.actors import Context
from portal.core.errors import Forbidden, Invalid


def require_tenant(context: Context) -> UUID:
    """The tenant that the caller acts in.

    Raises:
        Forbidden: none was chosen.
    """
    if context.tenant_id is None:
        raise Forbidden("Choose a tenant first.", code="no_tenant")
    return context.tenant_id


def clean_text(value: str, param: str, *, most: int, least: int = 0) -> str:
    """The text without outer blanks.

    Raises:
        Invalid: too short, too long, or with control characters, which no database column and
            no audit line should hold.
    """
    text = value.strip()
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Invalid(f"'{param}' holds control characters.", param=param)
    if not least <= len(text) <= most:
        raise Invalid(f"'{param}' must have {least} to {most} characters.", param=param)
    return text


def clean_email(value: str, param: str = "email") -> str:
    """The e-mail address in the form in which it is stored: lower case.

    Raises:
        Invalid: it is no e-mail address.
    """
    email = clean_text(value, param, most=254, least=1).lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid(f"'{param}' is not an e-mail address.", param=param) from None
    return email
