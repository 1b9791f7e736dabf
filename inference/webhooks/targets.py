"""Where webhooks may go: the rules for callback URLs and for the addresses behind them."""

from collections.abc import Iterable
from functools import cache

import httpx

from portal.core.env import env
from portal.core.errors import Invalid, PortalError
from portal.core.outgoing import Targets, literal_address, url_fault


class TargetRefused(PortalError):
    """Webhooks may not go there."""

    code = "webhook_target_refused"
    status = 400


@cache
def targets() -> Targets:
    """What this installation's operator allows."""
    return Targets.parse(env().webhook_networks)


def allowed_addresses(
    allowed: Targets, texts: Iterable[str], scheme: str, param: str = "url"
) -> list[str]:
    """Those of a name's addresses that may be called; ``param`` is what a refusal names.

    Raises:
        TargetRefused: none of them may.
    """
    found = allowed.allowed(texts, scheme)
    if not found:
        raise TargetRefused(
            "The receiver's address is not one that webhooks may go to; the operator lists "
            "networks in WEBHOOK_NETWORKS, and public addresses need https.",
            param=param,
        )
    return found


def clean_url(text: str, allowed: Targets, param: str = "url") -> httpx.URL:
    """A callback URL as it will be called.

    A host that is written as an address is checked here already; a name is resolved when it is
    called.

    Args:
        param: the input that a refusal names.

    Raises:
        Invalid: it is no URL of a webhook.
        TargetRefused: its address may not receive webhooks.
    """
    wrong = url_fault(text)
    if wrong:
        raise Invalid(f"The callback URL {wrong}.", param=param)
    url = httpx.URL(text)
    literal = literal_address(url)
    if literal is not None:
        allowed_addresses(allowed, [literal], url.scheme, param)
    return url
