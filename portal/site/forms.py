"""Forms of the site itself: log-in, change of password, entering a tenant."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from audit.services import intent
from portal.core.pages import INPUT
from tenants.models import User


class EmailAuthenticationForm(AuthenticationForm):
    """Log-in by e-mail address; says the same whatever was wrong."""

    error_messages = {
        "invalid_login": _("The e-mail address or the password is not right."),
        "inactive": _("The e-mail address or the password is not right."),
    }

    def __init__(self, request: HttpRequest | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        address = self.fields["username"]
        address.label = _("E-mail address")
        address.widget = forms.EmailInput(
            attrs={**INPUT, "autocomplete": "username", "autofocus": True, "maxlength": 254}
        )
        self.fields["password"].label = _("Password")
        self.fields["password"].widget.attrs.update(INPUT)

    def get_invalid_login_error(self) -> ValidationError:
        return ValidationError(self.error_messages["invalid_login"], code="invalid_login")


class OwnPasswordForm(PasswordChangeForm):
    """A user's own new password."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs.update(INPUT)
        self.fields["new_password1"].help_text = _(
            "At least 12 characters, not a common password and not like your name or address."
        )

    def save(self, commit: bool = True) -> User:
        """Sets the password; the trail tells who did, never what it is."""
        with intent(
            "user.change_password",
            object_type="tenants.user",
            object_id=self.user.pk,
            object_label=self.user.email,
        ):
            user: User = super().save(commit)
        return user
