"""Validation: the input is read once, line by line, before any of it is run."""

from typing import Final

from django.utils import timezone

from inference.batches.files import InputFile, line_cipher
from inference.batches.lines import Line, LineFault, Request, check_line, read_lines
from inference.batches.results import fault_object
from inference.batches.store import WaitingLine, add_lines, known_ids
from inference.models import Batch, BatchLine, BatchState
from portal.core.crypto import Cipher
from portal.core.env import env

LINES_A_STEP: Final = 1000
_BYTES_A_STEP: Final = 8_000_000
_MOST_FAULTS: Final = 50
"""How many faults are told of: who has more of them has seen what kind they are."""


class Validation:
    """One step of a batch's validation, in its tenant's scope."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._cipher = line_cipher(batch.tenant_id, batch.input_file.data_key_version)
        self._faults: list[LineFault] = []
        self._new: dict[bytes, WaitingLine] = {}

    def step(self) -> None:
        """Reads on where the step before left off; the batch is saved.

        Raises:
            InvalidCiphertext: the input can't be read.
        """
        batch = self._batch
        at_end = self._read()
        self._keep_new()
        room = _MOST_FAULTS - len(batch.errors)
        batch.errors += [fault_object(fault) for fault in self._faults[:room]]
        if batch.total > env().max_batch_lines:
            most = env().max_batch_lines
            message = f"A batch may have {most} requests at most: split the file."
            batch.errors.append(fault_object(LineFault("too_many_requests", message)))
        if at_end and not batch.total and not batch.errors:
            message = "The input file holds no request."
            batch.errors.append(fault_object(LineFault("empty_file", message)))
        if batch.errors and (at_end or len(self._faults) >= room or self._overfull()):
            self._fail()
        elif at_end:
            batch.state, batch.in_progress_at = BatchState.IN_PROGRESS, timezone.now()
        batch.save()

    def _overfull(self) -> bool:
        return self._batch.total > env().max_batch_lines

    def _read(self) -> bool:
        """Checks the lines of this step; whether they were the last ones."""
        batch, source = self._batch, InputFile(self._batch.input_file)
        first_byte, first_line = batch.bytes_read, batch.lines_read
        lines = read_lines(
            source.piece_at,
            start=first_byte,
            lines_before=first_line,
            longest=env().max_body_bytes,
        )
        for line in lines:
            self._check(line)
            batch.bytes_read, batch.lines_read = line.following, line.number
            many = line.number - first_line >= LINES_A_STEP
            if many or line.following - first_byte >= _BYTES_A_STEP:
                break
        return batch.bytes_read >= batch.input_file.size

    def _check(self, line: Line) -> None:
        batch = self._batch
        if line.content is not None and not line.content.strip():
            return
        checked = check_line(line, endpoint=batch.endpoint, model=batch.model)
        if isinstance(checked, LineFault):
            self._faults.append(checked)
            return
        request, batch.model = checked
        self._take(line, request)

    def _take(self, line: Line, request: Request) -> None:
        batch = self._batch
        custom_id = request.custom_id.encode()
        hmac = self._cipher.fingerprint(custom_id)
        if hmac in self._new:
            self._faults.append(_duplicate(line.number))
            return
        assert line.content is not None
        sealed = sealed_id(self._cipher, batch, line.number, custom_id)
        self._new[hmac] = WaitingLine(line.number, sealed, line.start, len(line.content))

    def _keep_new(self) -> None:
        for hmac in known_ids(self._batch, list(self._new)):
            self._faults.append(_duplicate(self._new.pop(hmac).number))
        add_lines(self._batch, list(self._new.values()), list(self._new))
        self._batch.total += len(self._new)

    def _fail(self) -> None:
        """Nothing of it is run: what was read of its lines is dropped."""
        batch = self._batch
        BatchLine.objects.filter(tenant_id=batch.tenant_id, batch_id=batch.id).delete()
        batch.total = 0
        batch.errors.sort(key=lambda fault: fault["line"] or 0)
        batch.state, batch.ended_at = BatchState.FAILED, timezone.now()


def _duplicate(number: int) -> LineFault:
    message = "Another line has the same custom_id."
    return LineFault("duplicate_custom_id", message, number, "custom_id")


def sealed_id(cipher: Cipher, batch: Batch, number: int, custom_id: bytes) -> bytes:
    """A line's custom id as it is kept."""
    return cipher.encrypt(custom_id, row_id=batch.id, part=number)


def opened_id(cipher: Cipher, batch: Batch, number: int, custom_id: bytes) -> str:
    """A line's custom id as its caller gave it."""
    return cipher.decrypt(custom_id, row_id=batch.id, part=number).decode()
