"""What a call to Dify can end in.

What Dify writes in ``message`` is never kept: it changes between versions, is written for
developers, and can repeat a key. Its ``code`` says what is wrong.
"""

from typing import ClassVar

from portal.core.errors import PortalError


class DifyFault(PortalError):
    """A call to Dify that did not do what it was to do.

    Attributes:
        remote_status: the HTTP status, None where there was no answer.
        remote_code: Dify's own code, such as ``dataset_name_duplicate``; empty if it gave none.
        retryable: whether the same call can succeed later.
        blames: the part of an ``Endpoint`` that is to blame, if one is.
    """

    code = "dify_fault"
    status = 502
    sentence: ClassVar[str] = "Dify did not do what it was asked."
    retryable: ClassVar[bool] = False
    blames: ClassVar[str] = ""

    def __init__(
        self,
        message: str = "",
        *,
        remote_status: int | None = None,
        remote_code: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            message or self.sentence, param=self.blames or None, retry_after=retry_after
        )
        self.remote_status = remote_status
        self.remote_code = remote_code


class AddressNotAllowed(DifyFault):
    blames = "base_url"
    code = "dify_address_not_allowed"
    status = 400
    sentence = (
        "Dify's address is not one that the portal may call; the operator lists networks in "
        "DIFY_NETWORKS, and public addresses need https."
    )


class Unreachable(DifyFault):
    """No connection, or one that broke off."""

    blames = "base_url"
    code = "dify_unreachable"
    sentence = "Dify can't be reached; check its address and that it runs."
    retryable = True


class HostUnknown(Unreachable):
    code = "dify_host_unknown"
    sentence = "Dify's host name can't be resolved; check its address."


class BrokenOff(Unreachable):
    code = "dify_broken_off"
    sentence = (
        "The connection broke off, or what answers does not speak HTTP; check the address and "
        "that Dify runs."
    )


class TimedOut(DifyFault):
    """No answer in time; what was asked may have been done."""

    blames = "base_url"
    code = "dify_timeout"
    status = 504
    sentence = "Dify did not answer in time."
    retryable = True


class CertificateRefused(DifyFault):
    blames = "base_url"
    code = "dify_certificate_refused"
    sentence = (
        "Dify's certificate is not trusted, or not its name's; the operator names its authority "
        "in DIFY_CA_FILE."
    )


class NotDify(DifyFault):
    """What answers is no Dify: its answers carry no version, or are not what Dify says."""

    blames = "base_url"
    status = 400
    code = "not_dify"
    sentence = (
        "What answers at this address is not Dify; give the address under which Dify's console "
        "opens."
    )


class Redirected(NotDify):
    code = "dify_redirects"
    sentence = "The address answers with a redirect, which is not followed; give the final address."


class UnexpectedAnswer(DifyFault):
    """Dify answered in a shape that this client does not know."""

    code = "dify_unexpected_answer"
    sentence = "Dify answered in a way that this portal does not know; check its version."


class StillThere(DifyFault):
    """Dify says that it has deleted something, and has it still."""

    code = "dify_still_there"
    sentence = "Dify said that it deleted this, and has it still; it is deleted again."
    retryable = True


class TooLarge(DifyFault):
    code = "dify_answer_too_large"
    sentence = "Dify's answer is larger than the portal takes."


class Refused(DifyFault):
    """Dify refused the call: the input is wrong, or contradicts its state."""

    code = "dify_refused"
    sentence = "Dify refused the call."


class KeyRefused(Refused):
    """The key is wrong, or is another workspace's."""

    code = "dify_key_refused"
    sentence = "Dify refuses the key."


class Denied(Refused):
    """The key is right and may not do this: the API is off, or a quota is reached."""

    code = "dify_denied"
    sentence = "Dify denies the call."


class Missing(Refused):
    """There is no such object, or no such route in this version."""

    code = "dify_missing"
    status = 404
    sentence = "Dify has no such object."


class NoRoute(Missing):
    """Not Dify's word on an object, but its router's, or that of what stands in front of it."""

    code = "dify_no_route"
    sentence = "Dify does not know the address of the call; look at what stands in front of it."


class Unsupported(Refused):
    """This version of Dify does not offer the call."""

    code = "dify_unsupported"
    sentence = "This version of Dify does not offer the call."


class NameTaken(Refused):
    code = "dify_name_taken"
    status = 409
    sentence = "Dify has an object of this name already."


class StillProcessing(Refused):
    """An earlier change of the document is not done yet; about a second later it is."""

    code = "dify_still_processing"
    status = 409
    sentence = "Dify is still working on an earlier change of the document."
    retryable = True


class WrongMode(Refused):
    """The key is of a workflow and the call for a chat, or the other way round."""

    code = "dify_wrong_mode"
    sentence = "In Dify, the app is of another kind."


class ModelUnavailable(Refused):
    """The workspace has no such model, or its provider refuses it."""

    code = "dify_model_unavailable"
    sentence = (
        "The app's model can't be used in Dify: see there under Settings, Model Provider, or "
        "deploy the app again."
    )


class ModelFailed(Refused):
    """The model did not answer Dify."""

    code = "dify_model_failed"
    sentence = "The app's model did not answer Dify; see whether its deployment works."
    retryable = True


class Busy(DifyFault):
    """Too many calls; ``retry_after`` says when to come back."""

    code = "dify_busy"
    status = 503
    sentence = "Dify takes no more calls for the moment."
    retryable = True


class Failed(DifyFault):
    """Dify, or what stands in front of it, failed."""

    code = "dify_failed"
    sentence = "Dify failed while it worked on the call."
    retryable = True


class Down(Failed):
    """What stands in front of Dify answers in its place."""

    code = "dify_down"
    sentence = "Dify does not answer, but what stands in front of it: check that Dify runs."
