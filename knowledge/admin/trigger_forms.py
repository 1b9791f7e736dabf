"""Forms of triggers."""

import json
from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.models import App, AppMode, Trigger, TriggerKind
from knowledge.models.triggers import MOST_KEEP_DAYS, MOST_STREAM_CHARS
from knowledge.schedules import MOST_CHARS
from knowledge.triggers.rules import MOST_MINUTES, MOST_NAME_CHARS
from portal.core.outgoing import MOST_URL_CHARS
from portal.core.pages import INPUT, ServiceForm

_WRONG_KIND = {
    dict: _("It must be a JSON object."),
    list: _("It must be a JSON list."),
}


class JsonField(forms.JSONField):
    """JSON of one kind, typed by hand; empty stands for none of it."""

    def __init__(self, kind: type[dict[str, Any]] | type[list[Any]], rows: int, **options: Any):
        self._kind = kind
        box = forms.Textarea(attrs={**INPUT, "rows": rows, "spellcheck": "false"})
        super().__init__(required=False, widget=box, **options)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):  # As it was typed.
            return value
        return json.dumps(value, ensure_ascii=False, indent=2) if value else ""

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is None:
            return self._kind()
        if not isinstance(found, self._kind):
            raise forms.ValidationError(_WRONG_KIND[self._kind])
        return found


class StartForm(EmptyForm):
    """What the app is given when it is started by hand."""

    inputs = JsonField(
        dict,
        5,
        label=_("Inputs"),
        help_text=_("A JSON object: the app's inputs by their names."),
    )


class TriggerForm(ServiceForm):
    """A trigger that is being made."""

    name = forms.CharField(
        label=_("Name"),
        max_length=MOST_NAME_CHARS,
        widget=forms.TextInput(attrs={**INPUT, "autofocus": True}),
    )
    app_id = forms.ChoiceField(
        label=_("App"),
        help_text=_("Apps of the mode 'run' can be started."),
        widget=forms.Select(attrs=INPUT),
    )
    kind = forms.ChoiceField(
        label=_("Started by"),
        choices=TriggerKind.choices,
        widget=forms.Select(attrs={**INPUT, "data-chooses": "kind"}),
    )
    stream = forms.CharField(
        label=_("Stream"),
        max_length=MOST_STREAM_CHARS,
        required=False,
        help_text=_("The name under which events are sent, such as card-payments."),
        widget=forms.TextInput(attrs={**INPUT, "data-chosen": "kind:event"}),
    )
    rules = JsonField(
        list,
        9,
        label=_("Rules"),
        help_text=_(
            "A JSON list. Compares a field: "
            '{"name": "large", "when": {"type": "compare", "field": "amount", "op": ">=", '
            '"value": 9000}}. Looks back: {"name": "many", "weight": 0.5, "when": {"type": '
            '"window", "measure": "count", "minutes": 10, "op": ">=", "value": 5}}. '
            "Empty: every event starts the app."
        ),
    )
    threshold = forms.FloatField(
        label=_("Weight that starts the app"),
        initial=1,
        help_text=_("The app is started where the rules that hold weigh this much together."),
        widget=forms.NumberInput(attrs={**INPUT, "step": "any", "data-chosen": "kind:event"}),
    )
    cooldown_minutes = forms.IntegerField(
        label=_("Pause of a subject, in minutes"),
        min_value=0,
        max_value=MOST_MINUTES,
        initial=0,
        help_text=_("A subject that has started the app starts it no more for so long."),
        widget=forms.NumberInput(attrs={**INPUT, "data-chosen": "kind:event"}),
    )
    schedule = forms.CharField(
        label=_("Schedule"),
        max_length=MOST_CHARS,
        required=False,
        help_text=_(
            "Minutes, such as 15, or five fields of cron in the tenant's time zone, such as "
            "30 7 * * mon-fri for half past seven on weekdays."
        ),
        widget=forms.TextInput(attrs={**INPUT, "data-chosen": "kind:schedule"}),
    )
    inputs = JsonField(
        dict,
        4,
        label=_("Inputs"),
        help_text=_(
            "What the app is given, as a JSON object: a text, $.amount for a field of the event, "
            "$event, $recent, $findings, $subject, $type or $time."
        ),
    )
    alert_when = JsonField(
        dict,
        3,
        label=_("Alert when"),
        help_text=_(
            "A condition on the answer, such as "
            '{"type": "compare", "field": "risk", "op": "==", "value": "high"}. Empty: never.'
        ),
    )
    notify_url = forms.CharField(
        label=_("Alerts are told to"),
        max_length=MOST_URL_CHARS,
        required=False,
        help_text=_("The address of a webhook. Empty: alerts are shown here, and told to nobody."),
        widget=forms.URLInput(attrs=INPUT),
    )
    keep_days = forms.IntegerField(
        label=_("Days that contents are kept"),
        min_value=0,
        max_value=MOST_KEEP_DAYS,
        initial=30,
        help_text=_("What runs were given and answered; with 0 it is deleted as a run ends."),
        widget=forms.NumberInput(attrs=INPUT),
    )

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        self.fields["rules"].widget.attrs["data-chosen"] = "kind:event"
        if subject is None:
            apps = App.objects.filter(mode=AppMode.RUN).order_by("name")
            self.fields["app_id"].choices = [(str(app.pk), app.name) for app in apps]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """What belongs to the other kind is out of sight, and not sent."""
        data = super().clean() or {}
        for name in _OF_THE_OTHER.get(data.get("kind", ""), ()):
            data.pop(name, None)
            self.errors.pop(name, None)
        return data

    def clean_alert_when(self) -> dict[str, Any] | None:
        return self.cleaned_data["alert_when"] or None


_OF_THE_OTHER = {
    TriggerKind.EVENT.value: ("schedule",),
    TriggerKind.SCHEDULE.value: ("stream", "rules", "threshold", "cooldown_minutes"),
}


class EditTriggerForm(TriggerForm):
    """A trigger's settings as they are; what starts it, and its app, stay."""

    app_id = None  # type: ignore[assignment]
    kind = None  # type: ignore[assignment]
    forget_url = forms.BooleanField(label=_("Tell alerts to nobody any more"), required=False)
    field_order = (
        "name", "stream", "rules", "threshold", "cooldown_minutes", "schedule", "inputs",
        "alert_when", "notify_url", "forget_url", "keep_days",
    )  # fmt: skip

    def __init__(self, request: HttpRequest, subject: Trigger, **kwargs: Any) -> None:
        super().__init__(request, subject, **kwargs)
        for name in _OF_THE_OTHER[subject.kind]:
            del self.fields[name]
        if subject.receiver:
            self.fields["notify_url"].help_text = _(
                "Leave it empty to keep the present address, which is never shown again."
            )
        else:
            del self.fields["forget_url"]

    def clean(self) -> dict[str, Any]:
        """An address that was left empty stays, unless it is to be forgotten."""
        data = super().clean()
        if data.pop("forget_url", False):
            data["notify_url"] = ""
        elif not data.get("notify_url"):
            data.pop("notify_url", None)
        return data
