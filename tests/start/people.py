"""What people and programs do with an installation that runs: log in, open pages, ask the model."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

_FORM_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
# What a browser fetches by itself; a link that a person may follow is none of it.
_LOADED = re.compile(
    r"<(?:script|img|iframe|link|source|video|audio)\b[^>]*?(?:src|href)=[\"']([^\"']+)"
)
_LOADED_BY_CSS = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@contextmanager
def logged_in(facts: Mapping[str, str], who: str) -> Iterator[httpx.Client]:
    """A browser's session of one of the printed log-ins; fails unless the log-in succeeds."""
    with httpx.Client(base_url=facts["url"], timeout=30, trust_env=False) as browser:
        page = browser.get("/admin/login/")
        token = _FORM_TOKEN.search(page.text)
        assert token is not None, page.text[:2000]
        answer = browser.post(
            "/admin/login/",
            data={
                "csrfmiddlewaretoken": token[1],
                "username": facts[f"{who}_email"],
                "password": facts[f"{who}_password"],
            },
            headers={"Referer": str(page.url)},
        )
        assert answer.status_code == 302, answer.text[:2000]
        yield browser


def open_page(browser: httpx.Client, path: str) -> list[str]:
    """Opens a page with all it loads; the addresses loaded, none of which may be elsewhere."""
    page = browser.get(path)
    assert page.status_code == 200, page.text[:2000]
    found = [urljoin(str(page.url), address) for address in _LOADED.findall(page.text)]
    for address in list(found):
        if urlsplit(address).path.endswith(".css"):
            style = browser.get(address).text
            inner = [first or second for first, second in _LOADED_BY_CSS.findall(style)]
            found += [urljoin(address, name) for name in inner]
    wanted = [address for address in found if urlsplit(address).scheme in ("http", "https")]
    for address in wanted:
        if urlsplit(address).netloc == urlsplit(str(page.url)).netloc:
            assert browser.get(address).status_code == 200, address
    return wanted


def ask(facts: Mapping[str, str], question: str, *, max_tokens: int = 12) -> str:
    """The streamed answer to one question; fails unless the stream ends as it should."""
    body = {
        "model": facts["model"],
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "max_tokens": max_tokens,
    }
    headers = {"Authorization": f"Bearer {facts['api_key']}"}
    with (
        httpx.Client(base_url=facts["url"], timeout=60, trust_env=False) as client,
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        return streamed_text(answer.read().decode())


def streamed_text(said: str) -> str:
    """The text of a stream of chat completion chunks, which must be whole.

    Raises:
        AssertionError: there is an error in it, or its end is missing.
    """
    data = [line.removeprefix("data: ") for line in said.splitlines() if line.startswith("data: ")]
    assert data, said
    assert data[-1] == "[DONE]", said
    chunks: list[dict[str, Any]] = [json.loads(chunk) for chunk in data[:-1]]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )
