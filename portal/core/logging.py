"""Structured logs: one JSON object a line on standard error, redacted, from every library.

Events are named by verbs, ``subject.verb_in_past_tense``: ``quota.exceeded``,
``worker.started``. Facts go into fields, never into the name.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from portal.core.actors import Context
from portal.core.redaction import redact

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_CANNOT_WRITE: Final = "log.failed_to_write"


def configure(
    log_format: LogFormat, level: LogLevel, process: str, *, stream: TextIO | None = None
) -> None:
    """Route structlog, stdlib logging and warnings to one redacted stream; may be called again.

    Args:
        log_format: ``json`` for machines, ``console`` for a developer's eyes.
        level: least severe line that is written.
        process: name of this kind of process, such as ``gateway``, in every line.
        stream: where to write; standard error by default.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Named(process),
    ]
    handler = _Handler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                redact_event,
                _render_json if log_format == "json" else _console(),
            ],
        )
    )
    root = logging.getLogger()
    # Any other handler would write records that nothing has redacted.
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    # They log each request that they send.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


@contextmanager
def bound(context: Context) -> Iterator[None]:
    """Put the caller's request, tenant and actor into every line written inside."""
    fields = {
        "request_id": context.request_id or None,
        "tenant_id": context.tenant_id,
        "actor_id": context.actor.id or context.actor.label,
    }
    known = {name: str(value) for name, value in fields.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**known):
        yield


def redact_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """The processor that removes secrets; a record it can't read is replaced, never passed on."""
    try:
        return redact(event)
    except Exception as fault:  # noqa: BLE001  (any object may be logged, and logging never fails)
        return {
            "event": "log.failed_to_redact",
            "level": "error",
            "fault": type(fault).__name__,
        }


class _Named:
    """Adds the process's name."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["process"] = self._process
        return event


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines; the stock handler would print the arguments of a malformed call in clear."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (stdlib's name)
        fault = sys.exc_info()[0]
        line = {
            "event": _CANNOT_WRITE,
            "level": "error",
            "logger": str(record.name),
            "line": record.lineno,
            "fault": fault.__name__ if fault else None,
        }
        try:
            self.stream.write(json.dumps(line) + self.terminator)
        except (OSError, ValueError):
            # The stream itself is gone: there is nowhere left to say so.
            return


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return json.dumps(event, ensure_ascii=False, default=_type_name)


def _type_name(value: object) -> str:
    return f"<{type(value).__name__}>"


def _console() -> Processor:
    # Exceptions arrive as redacted text; the rich formatter would want them live, with locals.
    return structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )


def process_name() -> str:
    """What this process is, by how it was started: ``manage``, ``web``, ``worker``, ``beat``..."""
    words = [Path(word).stem for word in sys.argv[:6]]
    for name in ("beat", "worker"):
        if name in words:
            return name
    return {"web": "web", "manage": "manage"}.get(words[0] if words else "", "portal")
