"""Input rules that several services share."""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from portal.core.actors import Context
from portal.core.errors import Forbidden, Invalid
from portal.core.http import parse_network
from tenants.models.people import SERVICE_DOMAIN

MOST_NETWORKS: Final = 50
_MAX_NETWORK_CHARS: Final = 64


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
    if email.endswith(SERVICE_DOMAIN):
        # Whether there is such a service account is nobody's to learn.
        raise Invalid(f"'{param}' is not an e-mail address.", param=param)
    return email


def clean_networks(texts: Iterable[str] | None, param: str) -> list[str] | None:
    """Networks in CIDR notation as they are stored: canonical, each once; None for none.

    Raises:
        Invalid: too many, or naming the first that is none.
    """
    given = [text.strip() for text in texts or ()]
    if len(given) > MOST_NETWORKS:
        raise Invalid(f"At most {MOST_NETWORKS} networks can be listed.", param=param)
    return list(dict.fromkeys(_network(text, param) for text in given)) or None


def _network(text: str, param: str) -> str:
    shown = text[:_MAX_NETWORK_CHARS]
    # A zone ("%eth0") means something on one machine only.
    if shown != text or "%" in text:
        raise Invalid(f"'{shown}' is no network, such as 192.0.2.0/24.", param=param)
    try:
        return str(parse_network(text))
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"'{shown}' is no network, such as 192.0.2.0/24.", param=param) from None
    raise Invalid(
        f"'{shown}' is an address within a network: write {meant} for the network.", param=param
    )
