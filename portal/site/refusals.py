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
    _("The tenant is %(state)s; it can't be closed again."),
    _("The tenant is %(state)s; it can't be edited any more."),
    _("The tenant is %(state)s, not %(wanted)s."),
    _("The tenant is %(state)s; its limits can't be changed any more."),
    _("Its deletion has begun, so it can't be reopened."),
    _("'name' is not the tenant's name: type it exactly."),
    _("A closed tenant had this name: choose another."),
    _("The tenant is deleted: there is nothing left to export."),
    _("An export is being made; wait until it is ready."),
    _("No export is ready: ask for one, or wait until it is made."),
    _("The export's file is gone: ask for a new one."),
    _("There is no certificate: the tenant is not closed."),
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
    _("There is already a service account '%(name)s'."),
    _("There is no such service account."),
    _("The service account is %(state)s already."),
    _("The service account is disabled: enable it before you give it a key."),
    _("The service account is retired: make a new one."),
    _("'name' must not hold an '@'."),
    _("'responsible_id' must be a member of the tenant."),
    _("The API key has expired: make a new one."),
    _("A playground key can't be changed: it ends with its session."),
    _("The API key is revoked already."),
    _("The tenant's own quota can't be deleted; take its limits away instead."),
    _("There is no such API key."),
    _("There is no such member."),
    _("There is no such quota."),
    _("There is no such default quota."),
    _("There is no such member or service account."),
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
    _("The callback URL must be printable ASCII without blanks; encode the rest."),
    _("The callback URL must have at most %(n)s characters."),
    _("The callback URL is no URL."),
    _("The callback URL must begin with https:// or http:// and name a host."),
    _("The callback URL must hold no user name and no password."),
    _("The callback URL must have no fragment (#)."),
    _("The callback URL must name a host by letters, digits, dots and hyphens, or by an address."),
    _("The callback URL must name port 80, 443, or one from 1024 to 65535."),
    _(
        "The receiver's address is not one that webhooks may go to; the operator lists "
        "networks in WEBHOOK_NETWORKS, and public addresses need https."
    ),
    _("Make the tenant's webhook signing secret first."),
    _("Another test is under way in this tenant; try again in a moment."),
    _("There is no such webhook delivery."),
    _("The job has not ended yet; its webhook comes then."),
    _("The webhook is being sent right now; try again in a minute."),
    _("There was no answer within %(n)s seconds."),
    _("The receiver's name can't be resolved."),
    _("The receiver answered %(n)s; redirects are not followed."),
    _("The receiver answered %(n)s."),
    _("The receiver did not take the connection in time."),
    _("The receiver did not answer in time."),
    _("The receiver can't be reached."),
    _("The connection broke off."),
    _("The receiver's answer is not HTTP."),
    _("The receiver's certificate is not trusted, or not its name's."),
    _("The call failed."),
    _("The callback URL can't be decrypted."),
    _("The tenant has no signing secret that can be read."),
    _("There is no such model."),
    _("There is no such model version."),
    _("There is no such worker."),
    _("There is no artefact '%(name)s'."),
    _("The version '%(wanted)s' of '%(name)s' is another artefact."),
    _("There is already a price from that moment."),
    _("The name or the queue is taken."),
    _("'currency' must be a code of three letters, such as USD."),
    _("There is no engine %(name)s; known are %(wanted)s."),
    _("The options of engine %(name)s are wrong: %(wanted)s."),
    _("'version_id' is a version of another model."),
    _(
        "The version reads prompts in another way: disable the deployment, wait until its jobs "
        "have ended, and unload its workers first."
    ),
    _("It has had jobs, which must go on naming it: disable it instead."),
    _("Routes lead to the deployment: take it out of them first."),
    _("Workers of the deployment are up: stop them first."),
    _("The worker is not up: start it first."),
    _("The worker is unloaded already, or about to be."),
    _("The worker is loading already."),
    _("The worker is drained already, or about to be."),
    _("The worker holds no model: there is nothing to drain."),
    _("The worker's model could not be loaded: there is nothing to drain."),
    _("The worker is not drained: there is nothing to resume."),
    _("The worker holds no model: load it instead."),
    _("No worker of the deployment is up for which that makes sense."),
    _("Reading the deployment."),
    _("Starting the engine."),
    _("Loading the weights."),
    _("Releasing the model."),
    _("It waits for its turn to load again."),
    _("Not loaded again: another worker failed to."),
    _("The engine failed; the worker restarts."),
    _("There is no such knowledge base."),
    _("There is no such document."),
    _("There is no such app."),
    _("'%(field)s' can't be set."),
    _("The app is published, and callers use it: withdraw it first."),
    _(
        "Apps use this knowledge base: %(name)s. Withdraw them, or publish versions without it "
        "first."
    ),
    _("At most %(n)s API keys can be listed."),
    _("'slug' must not look like an id."),
    _("The specification is wrong: %(wanted)s"),
    _("'model' must be a model that is served here."),
    _("The input '%(name)s' is missing."),
    _("'prompt' must hold {{query}}."),
    _("'prompt' must hold {{context}}."),
    _("'prompt' has {{context}} without knowledge."),
    _("'prompt' is empty."),
    _("'%(field)s' has a place that is no input: %(name)s."),
    _("There is no such version."),
    _("There is already a knowledge base of this name."),
    _("There is already a document of this name in the knowledge base."),
    _("'%(field)s' must be a model that is served here, and that %(wanted)s."),
    _("Searching by meaning needs an embedding model: choose one, or search by full text."),
    _("This knowledge base has no embedding model: search it by full text."),
    _("'prompt_template' must hold {{context}} and {{query}}."),
    _(
        "The API key of the service account 'Knowledge bases' is revoked or disabled: save the "
        "knowledge base's settings to make another one."
    ),
    _("The documents of this tenant take all the room they may: delete some first."),
    _("'text' is empty."),
    _("'query' is empty."),
    _("A version that has not been read yet can't be compared."),
    _("The versions are too long to be compared here."),
    _("Files of this type can't be read: use txt, md, html, csv, pdf, docx or xlsx."),
    _("The file is empty."),
    _("The file is larger than 15 MB: split it into smaller ones."),
    _("The file is not text in a known encoding: save it as UTF-8."),
    _(
        "The content is not what the file's name says: it is no %(name)s. Save it as one, or give "
        "it the right extension."
    ),
    _(
        "The file is protected with a password, or of an older Office: save it without one, as "
        "%(name)s."
    ),
    _(
        "The file unpacks to far more than a document holds, so it is not opened. Save what you "
        "need of it as a new file."
    ),
    _("There is no text in the file."),
    _("There is no text in the PDF, only pictures: run text recognition (OCR) on it first."),
    _("The file is damaged: open it in its own program and save it again."),
    _("The PDF is protected with a password: save it without one."),
    _("There is more text in the file than can be read: split it."),
    _("Reading the file takes too long: split it, or save its text as txt."),
    _("The file can't be read: save it again, or save its text as txt."),
    _("Found by full text alone: %(name)s"),
    _("Not reranked: %(name)s"),
    _("The model did not answer in time; try again in a moment."),
    _("There is no such batch."),
    _("The batch has ended, or is about to: it can't be cancelled."),
    _(
        "Dify's address is not one that the portal may call; the operator lists networks in "
        "DIFY_NETWORKS, and public addresses need https."
    ),
    _("Dify can't be reached; check its address and that it runs."),
    _("Dify's host name can't be resolved; check its address."),
    _(
        "The connection broke off, or what answers does not speak HTTP; check the address and "
        "that Dify runs."
    ),
    _("Dify did not answer in time."),
    _(
        "Dify's certificate is not trusted, or not its name's; the operator names its authority"
        " in DIFY_CA_FILE."
    ),
    _(
        "What answers at this address is not Dify; give the address under which Dify's console "
        "opens."
    ),
    _("The address answers with a redirect, which is not followed; give the final address."),
    _("Dify answered in a way that this portal does not know; check its version."),
    _("Dify's answer is larger than the portal takes."),
    _("Dify said that it deleted this, and has it still; it is deleted again."),
    _("Dify refused the call."),
    _("Dify denies the call."),
    _("Dify has no such object."),
    _("This version of Dify does not offer the call."),
    _("Dify takes no more calls for the moment."),
    _("Dify failed while it worked on the call."),
    _("Dify refuses the key."),
    _(
        "In Dify the knowledge bases of a conversation are asked one value, such as {{query}}: "
        "let 'search' be one place and nothing else."
    ),
    _("In Dify '%(name)s' is an input of the portal's own: name yours otherwise."),
    _("'%(field)s' holds '{{#', which Dify reads as its own."),
    _(
        "In Dify a knowledge base is searched as it is set up there: leave 'method' out, "
        "and set it at the knowledge base."
    ),
    _(
        "The portal writes apps for Dify %(wanted)s; this one is %(name)s: let the app "
        "run in the portal, or use a Dify of such a version."
    ),
    _(
        "Dify has to reach this portal for models and knowledge: the operator sets "
        "PORTAL_URL to the address under which Dify does."
    ),
    _(
        "The workspace has no plugin for the portal's models: install "
        "'OpenAI-API-compatible' in Dify's marketplace, and check the connection."
    ),
    _("The app runs at '%(name)s': let it run in the portal first."),
    _("The app runs in the portal already."),
    _("A knowledge base that the app searches is not in Dify yet; the app follows it."),
    _("Dify did not take the app in; look at its log, and at the version that is published."),
    _(
        "Dify lost the app's knowledge bases when it took the app in: see that they stand "
        "in the same workspace."
    ),
    _(
        "In Dify the app was changed in ways that the portal has no words for: keep the "
        "portal's version, or make the change to the app here."
    ),
    _(
        "The app's key was deleted in Dify, and without one nobody can call it: keep the "
        "portal's version, which makes another, or let the app run in the portal."
    ),
    _("The model '%(name)s' is not served here."),
    _(
        "The portal works with Dify from %(wanted)s up to version 1; this one is %(name)s: "
        "upgrade it."
    ),
    _(
        "The portal works with Dify from %(wanted)s up to version 1; this one is %(name)s: "
        "use an instance of version 1."
    ),
    _(
        "Dify refuses the console key for this workspace: check the key, the workspace's id, "
        "and that Dify runs with ADMIN_API_KEY_ENABLE=true."
    ),
    _("Dify refuses the dataset key: make one in Dify under Knowledge, Service API."),
    _("The dataset key belongs to another workspace of this Dify: make one in this one."),
    _(
        "Confirm first that you hold a licence: Dify's own allows further workspaces only with "
        "written authorisation."
    ),
    _("The connection is a shared one: change it where it was made."),
    _("The connection is a shared one: share it where it was made."),
    _("Other tenants share the connection: delete theirs first."),
    _("Another connection is being tried; try again in a moment."),
    _(
        "The connection is shared within %(name)s; tenants of another organisation need an "
        "instance of their own."
    ),
    _("The connection is this tenant's own."),
    _("There is no such tenant, or it is not active."),
    _("The tenant shares the connection already."),
    _("'%(field)s' must be 8 to %(most)s printable characters without blanks."),
    _("There is already a connection '%(name)s'."),
    _("The address is no URL."),
    _("The address must begin with https:// or http:// and name a host."),
    _("The address must have no query (?)."),
    _("The address must hold no user name and no password."),
    _("The address must have no fragment (#)."),
    _("The address must name port 80, 443, or one from 1024 to 65535."),
    _("There is no such connection."),
    _("The address must be printable ASCII without blanks; encode the rest."),
    _("The address must have at most %(n)s characters."),
    _("The address must name a host by letters, digits, dots and hyphens, or by an address."),
    _("There is already a source of this name in the knowledge base."),
    _("There is no such source of documents."),
    _("The source is paused: resume it first."),
    _("'on_removed' must be delete, archive or keep."),
    _("This tenant may watch no folder: the operator gives it one in SOURCE_FOLDERS."),
    _("'path' must lead downwards: it may not hold '..'."),
    _(
        "There is no such folder: check its path, that it is no link, and that it is mounted "
        "where the portal's web and io processes run."
    ),
    _(
        "The folder may not be read: give the user that the portal's workers run as the right "
        "to read it."
    ),
    _("There are more than %(n)s files: choose a folder below, or patterns."),
    _("Folders stand in each other more than %(n)s deep: choose one below."),
    _(
        "The file's path is longer than %(n)s characters, or not printable text in UTF-8: "
        "rename it."
    ),
    _("The file can't be opened: let the portal's workers read it (%(name)s)."),
    _("The file is being written: it is left for the next run."),
    _("The document of this name is read out of a source: change it there, or use another name."),
    _(
        "There is already a document of this name in the knowledge base, which does not come "
        "from this source: delete or rename it."
    ),
    _(
        "Nothing was found where %(n)s documents came from, so none was removed. If that is "
        "meant, run it once with 'nothing may be found'."
    ),
    _("The run broke off several times at the same place: look into the io workers' log."),
    _("'%(name)s' may have %(n)s printable characters."),
    _(
        "'schedule' must be minutes (1 to %(n)s), or five fields of cron such as '0 3 * * *' "
        "for 3 o'clock each night."
    ),
    _("The database's host name can't be resolved: check it."),
    _(
        "The database's address is not one that the portal may call: the operator lists its "
        "network in SOURCE_NETWORKS, and public addresses need TLS."
    ),
    _(
        "The database can't be reached: check host and port, that it runs, and that it lets "
        "the portal's machines in."
    ),
    _("The database refuses the user or the password: check both."),
    _("The server has no such database for this user: check its name."),
    _(
        "The database offers no TLS, or its certificate is not trusted or not its name's: the "
        "operator names its authority in SOURCE_CA_FILE, or TLS is switched off for this "
        "source."
    ),
    _(
        "The database takes longer than %(n)s seconds: narrow the query, or give its key "
        "column an index."
    ),
    _("The connection to the database broke off: it is tried again by schedule."),
    _("The database refuses the query: %(name)s"),
    _("The query gives no column '%(name)s'; it gives: %(wanted)s."),
    _("The query gives more than %(n)s rows: narrow it, or make several sources of it."),
    _("Too many rows have the same '%(name)s': name a key column whose values are unique."),
    _("'%(name)s' can't be read on from: choose a column of numbers or times that grow."),
    _("A column of this type can't be read on from: choose a key of numbers, text or times."),
    _(
        "The row's key is empty, or longer than %(n)s characters: choose another key column, "
        "or leave such rows out."
    ),
    _("The row is larger than 15 MB: leave such rows out, or cut them in the query."),
    _(
        "Another row of the source has the same name: choose a name column whose values are "
        "unique, or none."
    ),
    _("Give the password again: it would be sent to another place or for another user."),
    _("'host' must be the name or the address of a machine."),
    _("'query' must begin with SELECT or WITH."),
    _("Name the column that tells a row from all others."),
    _("Name the columns whose text is searched."),
    _("'filter' must be an object, without $where and $function."),
    _("The row has no text: leave such rows out, or name other columns."),
    _("Dify has an object of this name already."),
    _("Dify is still working on an earlier change of the document."),
    _("Dify does not know the address of the call; look at what stands in front of it."),
    _("Dify does not answer, but what stands in front of it: check that Dify runs."),
    _("Dify lost the text while it was indexed."),
    _("Dify could not index the text."),
    _("The document has changed meanwhile."),
    _("Apps in Dify search '%(name)s': %(wanted)s. Take it out of them first."),
    _("There is no such object."),
    _("There is nothing to decide about it any more."),
    _("The connection is paused: have it go on first."),
    _("Knowledge bases stand there: %(name)s. Take the connection out of their settings first."),
    _(
        "What stood there is still being deleted in Dify: wait for it, or have it forgotten, so "
        "that it stays there."
    ),
    _(
        "Knowledge bases stand in this workspace: take the connection out of their settings "
        "first, and make another one."
    ),
    _("There is no such trigger."),
    _("No version of the app '%(name)s' is published."),
    _("What the run was given is not kept any more."),
    _("'stream' is needed: the events that start the app."),
    _("'schedule' is needed, such as '30 7 * * mon-fri'."),
    _("A schedule has no events, and so no rules."),
    _("'%(name)s' is no input of this app."),
    _("Triggers start apps of the mode 'run'; this one holds conversations."),
    _("A tenant may have %(n)s triggers."),
    _("There is already a trigger of this name."),
    _("'threshold' must be above 0."),
    _("'rules' may be %(n)s at most."),
    _("'rules' must have different names."),
    _("A rule's name has 1 to %(n)s characters."),
    _("A rule's 'weight' must be above 0, and 1000 at most."),
    _("A rule may have %(n)s conditions, %(most)s deep."),
    _("'of' of 'all' and 'any' needs conditions."),
    _("'field' names a field, in 1 to 200 characters."),
    _("'value' is a list for 'in', and for nothing else."),
    _("'value' of '%(name)s' must be a number."),
    _("'value' of a window must be a number."),
    _("'minutes' must be from 1 to %(n)s."),
    _("Every measure but 'count' needs a 'field'."),
    _("'%(field)s' can't ask for a window."),
    _("'%(field)s' is wrong: %(name)s."),
    _("The input '%(name)s' must be a text."),
    _("The input '%(name)s' names what there is not: %(wanted)s. There are %(n)s."),
    _("'stream' has 1 to %(n)s of a-z, 0-9 and hyphens, such as card-payments."),
    _("There is an app '%(name)s' already: the scenario is installed."),
    _("No model that generates is served yet."),
    _("'rating' must be 1, 0 or -1."),
    _("Apps run there: %(name)s. Let them run in the portal first."),
    _(
        "Dify has been indexing this for more than an hour: check that its worker runs. If it "
        "never ends, delete the document in Dify, and it is made again."
    ),
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
