"""A check of a version's files in words."""

from dataclasses import dataclass
from typing import Final

from django.db.models import ObjectDoesNotExist
from django.template.defaultfilters import filesizeformat
from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.models import CheckState, ModelCheck, ModelVersion
from portal.core.pages import Text

_FAULTS: Final[dict[str, Text]] = {
    "missing": _("missing"),
    "corrupt": _("corrupt: its content has changed"),
    "extra": _("extra: it was not registered"),
}


@dataclass(frozen=True, slots=True)
class CheckText:
    """What the page says of the newest check; ``kind`` is its colour.

    ``percent`` is told while files are read; ``faults`` has the name and the fault of files.
    """

    kind: str
    text: str
    detail: str = ""
    percent: int | None = None
    faults: tuple[tuple[str, str], ...] = ()


def check_text(version: ModelVersion) -> CheckText | None:
    """The newest check of a version's files; None where there was none."""
    try:
        check: ModelCheck = version.check_asked
    except ObjectDoesNotExist:
        return None
    if check.state == CheckState.WAITING:
        return CheckText("info", gettext("The files wait to be read by an io worker."))
    if check.state == CheckState.RUNNING:
        read = {
            "read": filesizeformat(check.read_bytes),
            "total": filesizeformat(check.total_bytes),
        }
        text = gettext("The files are being read: %(read)s of %(total)s.") % read
        return CheckText("info", text, check.file, check.percent)
    when = {"time": _when(check), "who": check.asked_by}
    detail = gettext("Verified %(time)s, asked for by %(who)s.") % when
    if check.state == CheckState.GOOD:
        return CheckText("success", gettext("All files are as registered."), detail)
    if not check.faults:
        return CheckText("danger", check.detail, detail)
    faults = tuple((one["name"], str(_FAULTS[one["fault"]])) for one in check.faults)
    text = gettext("Files are not as registered; import the model again.")
    return CheckText("danger", text, detail, faults=faults)


def _when(check: ModelCheck) -> str:
    assert check.ended_at is not None, "it has ended"
    return formats.date_format(timezone.localtime(check.ended_at), "SHORT_DATETIME_FORMAT")
