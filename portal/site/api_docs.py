"""The management API's own description, and pages to read it."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.views import SpectacularSwaggerSplitView, SpectacularYAMLAPIView

from portal.core.rest import SIGNED_IN
from portal.site.api import DeclaredPermission


class ContextAuthenticationScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the API's description calls it."""

    target_class = "portal.site.api.ContextAuthentication"
    name = ["apiKey", "session"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key with management scopes.",
            },
            {
                "type": "apiKey",
                "in": "cookie",
                "name": "sessionid",
                "description": "A browser's session; writes also need the header X-CSRFToken.",
            },
        ]


class SchemaView(SpectacularYAMLAPIView):
    """The OpenAPI description."""

    permission_classes = [DeclaredPermission]
    actions = {"GET": SIGNED_IN}


class DocumentationView(SpectacularSwaggerSplitView):
    """Swagger UI, its script in a file of its own, so that no page needs inline scripts."""

    permission_classes = [DeclaredPermission]
    actions = {"GET": SIGNED_IN}
    url_name = "openapi"
