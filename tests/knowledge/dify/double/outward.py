"""The calls that the double makes: of sources of knowledge, and of models."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def post(url: str, key: str, body: Any) -> tuple[int, bytes]:
    """Status and content of the answer; 502 where there is none."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    headers = {"authorization": f"Bearer {key}"}
    content = b""
    if body is not None:
        content = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    try:
        connection.request("POST", parts.path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 502, b""
    finally:
        connection.close()
