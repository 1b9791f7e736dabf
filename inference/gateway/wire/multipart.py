"""An upload as it arrives: the fields of a form in memory, its file handed on piece by piece.

Nothing of the file touches a disk here: it is encrypted before it is kept anywhere.
"""

from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from portal.core.errors import Invalid

_FIELD_BYTES: Final = 4096
_MOST_FIELDS: Final = 16
_NAME_CHARS: Final = 255


class Form:
    """Takes a multipart body in whatever pieces it comes, and gives back the file's bytes.

    Attributes:
        fields: the fields that have been read whole, by name.
        filename: of the part ``file``; None until that part has begun.
        ended: the closing boundary has been read.

    Raises:
        Invalid: it is not a multipart form, or not one of ours; from every method.
    """

    def __init__(self, content_type: bytes) -> None:
        kind, options = parse_options_header(content_type)
        if kind.lower() != b"multipart/form-data":
            raise Invalid(
                "Send the file as a form with 'Content-Type: multipart/form-data'.",
                code="unsupported_media_type",
                status=415,
            )
        boundary = options.get(b"boundary")
        if not boundary:
            raise malformed("its Content-Type names no boundary")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.ended = False
        self._header = b""
        self._headers: dict[bytes, bytes] = {}
        self._value = bytearray()
        self._field: str | None = None
        self._parts = 0
        self._content: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as fault:
            raise malformed(str(fault)) from None

    def feed(self, body: bytes) -> list[bytes]:
        """The file's bytes in this piece of the body."""
        try:
            self._parser.write(body)
        except FormParserError as fault:
            raise malformed(str(fault)) from None
        content, self._content = self._content, []
        return content

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_FIELDS:
            raise malformed(f"it has more than {_MOST_FIELDS} parts")
        self._header, self._headers, self._field = b"", {}, None
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = bytes(self._value)
        self._header = b""
        self._value.clear()

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        self._field = _text(options.get(b"name", b""), "a field's name")
        if self._field == "file":
            if self.filename is not None:
                raise Invalid("Send one file.", code="invalid_value", param="file")
            self.filename = _clean_name(options.get(b"filename", b""))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file":
            self._content.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _FIELD_BYTES:
            raise malformed(f"a field is longer than {_FIELD_BYTES} bytes")

    def _part_end(self) -> None:
        name = self._field
        if name is not None and name != "file":
            if name in self.fields:
                raise malformed("a field comes twice")
            self.fields[name] = _text(bytes(self._value), "a field")
        self._value.clear()

    def _end(self) -> None:
        self.ended = True


def malformed(reason: str) -> Invalid:
    """400: the body is no form that can be read."""
    return Invalid(f"The upload can't be read: {reason}.", code="invalid_multipart")


def _text(value: bytes, what: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise malformed(f"{what} is not UTF-8") from None
    if "\0" in text:
        raise malformed(f"{what} holds a NUL character")
    return text


def _clean_name(value: bytes) -> str:
    """A caller's name for a file, as it may be shown: no folder, nothing unprintable."""
    name = value.decode(errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(c if c.isprintable() else "_" for c in name).strip()
    return clean[:_NAME_CHARS] or "file"
