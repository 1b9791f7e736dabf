"""Requests and answers between the server and its routes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import Any

HTML_404 = (
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n"
    "<p>The requested URL was not found on the server. If you entered the URL manually please "
    "check your spelling and try again.</p>\n"
)
JSON_TYPE, HTML_TYPE = "application/json", "text/html; charset=utf-8"


@dataclass(frozen=True)
class File:
    filename: str
    content: bytes
    media_type: str


@dataclass(frozen=True)
class Request:
    """One call, read; ``ids`` are those of its path, in order."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes
    ids: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        """The body.

        Raises:
            Refusal: it is no JSON.
        """
        if not self.raw:
            return {}
        try:
            return json.loads(self.raw)
        except ValueError:
            raise Refusal(400, "bad_request", "The request is not understood.") from None

    def multipart(self) -> tuple[dict[str, str], File | None]:
        """The fields and the file of a form."""
        head = f"content-type: {self.headers.get('content-type', '')}\r\n\r\n".encode()
        fields: dict[str, str] = {}
        file = None
        for part in message_from_bytes(head + self.raw).get_payload():
            assert not isinstance(part, str)
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            if part.get_filename() is not None:
                file = File(str(part.get_filename()), content, part.get_content_type())
            else:
                fields[name] = content.decode()
        return fields, file


@dataclass(frozen=True)
class Answer:
    """What is answered: a body, or a stream of parts that are made while they are sent."""

    status: int
    body: Any = None
    media_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    version: bool = True
    stream: Iterator[bytes] | None = None

    @property
    def content(self) -> bytes:
        if isinstance(self.body, str):
            return self.body.encode()
        return b"" if self.body is None else json.dumps(self.body).encode()


class Refusal(Exception):
    """An answer of Dify that is no success."""

    def __init__(
        self, status: int, code: str, message: str, *, body: Any = None, html: bool = False
    ) -> None:
        super().__init__(message)
        headers = {"www-authenticate": 'Bearer realm="api"'} if status == 401 else {}
        if html:
            self.answer = Answer(status, HTML_404, HTML_TYPE)
        else:
            shape = {"code": code, "message": message, "status": status}
            self.answer = Answer(status, shape if body is None else body, headers=headers)


def invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_param", message)


def missing(message: str, code: str = "not_found") -> Refusal:
    return Refusal(404, code, message)


def no_such_route() -> Refusal:
    """What the router says of unknown paths, and of ids that are none."""
    return Refusal(404, "", "", html=True)
