"""Fetches a model from a mirror inside the network that speaks Hugging Face's API.

Only the address that is given is ever asked. The revision is resolved once to the commit that it
stands for; of its files those of a model are taken and no others; a transfer that broke off goes on
at the same byte in the next run, which the official client does not do. What the mirror says of a
file's size and of a large file's SHA-256 is compared with what arrived.
"""

import fnmatch
import hashlib
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from inference.artefacts import safetensors
from inference.artefacts.embedding import SENTENCE_FILES
from inference.artefacts.folder import file_patterns
from inference.artefacts.manifest import Progress, file_entry
from portal.core.errors import Invalid, NotFound, Unavailable

_TIMEOUT = httpx.Timeout(30.0)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40,64}\Z")


class _Large(msgspec.Struct):
    sha256: str


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    lfs: _Large | None = None


class _Info(msgspec.Struct):
    """What ``/api/models/NAME/revision/REVISION?blobs=true`` says."""

    sha: str
    siblings: list[_Sibling]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files of one commit, in ``folder``."""

    folder: Path
    provenance: str


def fetch(
    url: str,
    repository: str,
    downloads: Path,
    *,
    token: str | None = None,
    weights: bool = True,
    progress: Progress | None = None,
) -> Snapshot:
    """Bring a repository's files into a folder below ``downloads``.

    Args:
        url: the mirror, ``http`` or ``https``; certificates are checked against the system's.
        repository: ``OWNER/NAME@REVISION``.
        token: sent as bearer, to the mirror itself alone; None sends none.
        weights: whether they are fetched; a model that is served elsewhere needs none here.

    Raises:
        NotFound: the mirror has no such repository or revision.
        Invalid: the address, the name, or no safetensors there; a file that arrived corrupt.
        Unavailable: the mirror can't be reached, or refuses; run it again to go on.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise Invalid(f"{url!r} is no address of a mirror, such as https://mirror.internal.")
    name, _, revision = repository.partition("@")
    if not _REPOSITORY.match(name) or not revision:
        raise Invalid("Name the repository and its revision: OWNER/NAME@REVISION.")
    url = url.rstrip("/")
    try:
        with _client(url, token) as client:
            return _fetch(client, url, name, revision, downloads, weights, progress)
    except httpx.HTTPError as fault:
        raise Unavailable(
            f"The transfer from {url} broke off ({type(fault).__name__}); run it again to go on."
        ) from None


def _client(url: str, token: str | None) -> httpx.Client:
    return httpx.Client(
        base_url=url,
        # Compressed transfers could not go on at a byte.
        headers={"Accept-Encoding": "identity"} | _bearer(token),
        timeout=_TIMEOUT,
        follow_redirects=True,  # The client takes the token away where another host is named.
        trust_env=False,
        verify=ssl.create_default_context(),
    )


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _fetch(
    client: httpx.Client,
    url: str,
    name: str,
    revision: str,
    downloads: Path,
    weights: bool,
    progress: Progress | None,
) -> Snapshot:
    info = _info(client, name, revision)
    place = hashlib.sha256(f"{url}\n{name}\n{info.sha}".encode()).hexdigest()[:16]
    folder = downloads / place
    folder.mkdir(parents=True, exist_ok=True)
    for sibling in _wanted(info.siblings, weights=weights):
        if not (folder / sibling.rfilename).is_file():
            _transfer(client, f"/{name}/resolve/{info.sha}/", sibling, folder, progress)
    return Snapshot(folder, f"{url}/{name}@{info.sha}")


def _info(client: httpx.Client, name: str, revision: str) -> _Info:
    path = f"/api/models/{name}/revision/{quote(revision, safe='')}"
    response = client.get(path, params={"blobs": "true"})
    _check(response)
    try:
        info = msgspec.json.decode(response.content, type=_Info)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise Unavailable(f"{response.url} does not speak Hugging Face's API: {fault}.") from None
    if not _COMMIT.match(info.sha):
        raise Unavailable(f"{response.url} does not say which commit '{revision}' stands for.")
    return info


def _check(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.NOT_FOUND:
        raise NotFound(f"{response.url.copy_with(query=None)} is not there.")
    if not response.is_success:
        raise Unavailable(f"The mirror answered {response.status_code} for {response.url.path}.")


def _wanted(siblings: list[_Sibling], *, weights: bool) -> list[_Sibling]:
    """The files of a model among a repository's; none in a folder below, but for its pooling."""
    found = [sibling for sibling in siblings if _is_wanted(sibling.rfilename)]
    if not weights:
        return [s for s in found if not s.rfilename.endswith((".safetensors", safetensors.INDEX))]
    if not any(sibling.rfilename.endswith(".safetensors") for sibling in found):
        raise Invalid(
            "The repository has no safetensors; pickled weights, which can run code when they are "
            "loaded, are never fetched."
        )
    return found


def _is_wanted(name: str) -> bool:
    if name in SENTENCE_FILES:
        return True
    return "/" not in name and any(fnmatch.fnmatchcase(name, glob) for glob in file_patterns())


def _transfer(
    client: httpx.Client,
    base: str,
    sibling: _Sibling,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Brings one file, from where an earlier run left it."""
    name = sibling.rfilename
    part = folder / f"{name}.part"
    part.parent.mkdir(exist_ok=True)
    begun = part.stat().st_size if part.is_file() else 0
    if not begun or begun != sibling.size:
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        with client.stream("GET", base + quote(name), headers=headers) as response:
            _check(response)
            _write(response, part, sibling, progress)
    arrived = file_entry(part, progress)
    if sibling.size not in (None, arrived.size) or (
        sibling.lfs is not None and sibling.lfs.sha256 != arrived.sha256
    ):
        part.unlink()
        raise Invalid(f"{name} arrived corrupt from the mirror; run it again.")
    part.rename(folder / name)


def _write(
    response: httpx.Response, part: Path, sibling: _Sibling, progress: Progress | None
) -> None:
    # A mirror that can't go on at a byte sends all of it again, and says so by its status.
    goes_on = response.status_code == httpx.codes.PARTIAL_CONTENT
    with part.open("ab" if goes_on else "wb") as file:
        for chunk in response.iter_bytes():
            file.write(chunk)
            if progress is not None:
                progress(sibling.rfilename, file.tell(), sibling.size or 0)
