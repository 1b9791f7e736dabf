"""Routes of the control plane."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from portal.site.api_docs import DocumentationView, SchemaView

api_patterns: list[URLPattern | URLResolver] = [
    path("", include("tenants.api.urls")),
    path("", include("inference.api.urls")),
    path("", include("knowledge.api.urls")),
    path("", include("audit.api.urls")),
    path("openapi.yaml", SchemaView.as_view(), name="openapi"),
    path("docs", DocumentationView.as_view(), name="api-docs"),
]
urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    path("api/v1/", include(api_patterns)),
    path("i18n/", include("django.conf.urls.i18n")),
]

handler400 = "portal.site.api.bad_request"
handler403 = "portal.site.api.permission_denied"
handler404 = "portal.site.api.not_found"
handler500 = "portal.site.api.server_error"
