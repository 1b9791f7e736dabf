"""Django's settings, all of them derived from ``portal.core.env``."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import django_stubs_ext
from django.templatetags.static import static
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _

from portal.core import logging as portal_logging
from portal.core.env import env

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
ENV = env()

SECRET_KEY = ENV.secret_key.get_secret_value()
DEBUG = ENV.debug
ALLOWED_HOSTS = [h.strip() for h in ENV.allowed_hosts.split(",") if h.strip()]

INSTALLED_APPS = [
    "portal.core",
    "unfold.apps.BasicAppConfig",
    "portal.site.apps.PortalAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "audit",
    "auditlog",
    "tenants",
    "inference",
    "knowledge",
    "portal.ops",
]


def database_from_url(url: str) -> dict[str, Any]:
    """Django's database settings of a PostgreSQL URL; ``?host=`` names a socket folder."""
    parts = urlsplit(url)
    query = {k: v[-1] for k, v in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": query,
    }


DATABASES = {"default": database_from_url(ENV.database_url(ENV.freehold_database_role))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["tenants.identity.backend.EmailBackend"]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
LOGOUT_REDIRECT_URL = "/admin/login/"

MIDDLEWARE = [
    "portal.site.metrics.MetricsMiddleware",
    "portal.site.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "portal.site.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "portal.site.middleware.ContextMiddleware",
    "portal.site.middleware.AuditMiddleware",
    # Below the audit: it refuses foreign host names, and a refusal is recorded.
    "django.middleware.common.CommonMiddleware",
    "portal.site.middleware.TenantScopeMiddleware",
]

ROOT_URLCONF = "portal.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "portal" / "site" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ],
        },
    },
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
FORMAT_MODULE_PATH = "portal.site.formats"
LOCALE_PATHS = [BASE_DIR / "portal" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATIC_ROOT = ENV.freehold_data_dir / "static"
STATICFILES_DIRS = [BASE_DIR / "portal" / "site" / "static"]

SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SECURE = ENV.cookie_secure
CSRF_COOKIE_SECURE = ENV.cookie_secure
CSRF_COOKIE_HTTPONLY = True
CSRF_USE_SESSIONS = True
CSRF_FAILURE_VIEW = "portal.site.errors.csrf_failure"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = ENV.max_body_bytes

AUDITLOG_LOGENTRY_MODEL = "audit.LogEntry"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["portal.site.api.ContextAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["portal.site.api.DeclaredPermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["portal.core.rest.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "portal.site.api.NewestFirstPagination",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "portal.site.api.problem_details",
    "UNAUTHENTICATED_USER": None,
    "PAGE_SIZE": 50,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Freehold management API",
    "VERSION": "1",
    "DESCRIPTION": "Tenants, API keys, jobs and the audit trail.",
    "SERVE_INCLUDE_SCHEMA": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "knowledge.api.app_schema.describe_app_gateway",
    ],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    # It draws only what is in sight of so many operations, so the browser's own search misses most.
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "filter": True},
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "TenantState": "tenants.models.tenant.TenantState",
        "JobState": "inference.api.serializers.STATES",
        "WebhookState": "inference.api.webhook_serializers.STATES",
        "TenantRole": "tenants.api.serializers.ROLES",
        "KeyScope": "tenants.api.serializers.SCOPES",
        "PlatformRole": "tenants.api.users.PLATFORM_ROLES",
        "TriggerRunState": "knowledge.api.trigger_serializers.RUN_STATES",
        "DocumentState": "knowledge.api.serializers.STATES",
        "RetrievalMethod": "knowledge.models.Method",
        "RunState": "knowledge.api.source_serializers.RUN_STATES",
        "SyncState": "knowledge.models.SyncState",
    },
}

UNFOLD = {
    "SITE_TITLE": "Freehold",
    "SITE_HEADER": "Freehold",
    "SITE_SUBHEADER": _("Your organisation's AI"),
    "SITE_URL": reverse_lazy("admin:index"),
    "SITE_SYMBOL": "domain",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda request: static("site/icon.svg"),
        }
    ],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_LANGUAGES": True,
    "STYLES": [lambda request: static("site/freehold.css")],
    "SCRIPTS": [lambda request: static("site/freehold.js")],
    "COLORS": {
        "primary": {
            "50": "oklch(97% .014 254.604)",
            "100": "oklch(93.2% .032 255.585)",
            "200": "oklch(88.2% .059 254.128)",
            "300": "oklch(80.9% .105 251.813)",
            "400": "oklch(70.7% .165 254.624)",
            "500": "oklch(62.3% .214 259.815)",
            "600": "oklch(54.6% .245 262.881)",
            "700": "oklch(48.8% .243 264.376)",
            "800": "oklch(42.4% .199 265.638)",
            "900": "oklch(37.9% .146 265.522)",
            "950": "oklch(28.2% .091 267.935)",
        },
    },
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": "portal.site.navigation.navigation",
    },
    "DASHBOARD_CALLBACK": "portal.site.dashboard.dashboard",
}

LOGGING_CONFIG = None
portal_logging.configure(ENV.log_format, ENV.log_level, portal_logging.process_name())
