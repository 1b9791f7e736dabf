"""Services' refusals in the reader's language.

Services speak English, for APIs and logs. What their sentences look like is listed here; the
changing parts, such as a name, are carried over.
"""

import re
from functools import cache
from typing import Final

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

SENTENCES: Final = (
    _("%(address)s is already a member."),
    _("There is already a user %(address)s."),
    _("The short name '%(name)s' is taken."),
    _("The tenant is %(state)s, not %(wanted)s."),
    _("'%(field)s' holds control characters."),
    _("'%(field)s' must have %(least)s to %(most)s characters."),
    _("'%(field)s' is not an e-mail address."),
    _("'%(field)s' must be from %(least)s to %(most)s."),
    _("'%(field)s' must be a whole number from 0 on."),
    _("'expires_at' must lie in the future."),
    _("'%(name)s' is no model name."),
    _("At most %(n)s models can be listed."),
    _("At most %(n)s networks can be listed."),
    _("'%(name)s' is no network, such as 192.0.2.0/24."),
    _("'%(name)s' is an address within a network: write %(wanted)s for the network."),
    _("There is no scope '%(name)s'."),
    _("You can't give a key the scope '%(name)s'."),
    _("Give at least one scope."),
    _("A tenant needs an owner: make another member owner first."),
    _("An administrator of the platform can't be a member of a tenant."),
    _("A member of a tenant can't administer the platform: remove the memberships first."),
    _("You can't do this to your own account."),
    _("You can't rotate a key that has the scope '%(name)s'."),
    _("You may revoke your own keys only."),
    _("You may change your own keys only."),
    _("The API key has expired: make a new one."),
    _("A playground key can't be changed: it ends with its session."),
    _("The API key is revoked already."),
    _("The tenant's own quota can't be deleted; take its limits away instead."),
    _("There is no such API key."),
    _("There is no such member."),
    _("There is no such quota."),
    _("There is no such tenant."),
    _("There is no such user."),
    _("There is no such deployment."),
    _("There is no such route."),
    _("There is no such override."),
    _("There is a route of that name."),
    _("A route has from 1 to %(n)s targets, each deployment once."),
    _("A weight is from 1 to %(n)s."),
    _("A tier is from 0 to %(n)s."),
    _("Tenants have this route by an override: remove those first."),
    _("This tenant is not active; ask your administrator."),
    _("No tenant is active."),
    _("Choose a tenant first."),
    _("Name at least one limit."),
    _("There is no such audit event."),
    _("The position in the list is malformed."),
    _("'to' is before 'from'."),
    _("The days must lie between 2000 and 2199."),
    _("Ask for at most %(n)s days at once."),
    _("A playground key needs a session."),
    _("An API key is made in a person's name."),
)
UNFOLD: Final = (
    _("Type to search"),
    _("Next"),
    _("Previous"),
    _("True"),
    _("False"),
    _("Clear all filters"),
    _("Toggle sorting"),
    _("Remove from sorting"),
)
"""Texts of Unfold's own templates, which come without Chinese."""


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(re.sub(r"%\\\((\w+)\\\)s|%\((\w+)\)s", _group, re.escape(s))), s)
        for s in SENTENCES
    )


def _group(place: re.Match[str]) -> str:
    return f"(?P<{place.group(1) or place.group(2)}>.+)"


def in_words(message: str) -> str:
    """The message in the active language, or as it is where it is not listed."""
    for pattern, sentence in _patterns():
        found = pattern.fullmatch(message)
        if found:
            return gettext(sentence) % found.groupdict()
    return message
