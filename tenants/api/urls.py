"""Routes of the tenants app under ``/api/v1/``."""

from django.urls import path

from tenants.api import closing, quota_defaults, service_accounts, usage, users, views

urlpatterns = [
    path("tenants", views.TenantsView.as_view(), name="tenants"),
    path("tenants/<str:tenant_id>", views.TenantView.as_view(), name="tenant"),
    path(
        "tenants/<str:tenant_id>/suspend", views.SuspendTenantView.as_view(), name="tenant-suspend"
    ),
    path("tenants/<str:tenant_id>/resume", views.ResumeTenantView.as_view(), name="tenant-resume"),
    path("tenants/<str:tenant_id>/close", closing.CloseTenantView.as_view(), name="tenant-close"),
    path(
        "tenants/<str:tenant_id>/reopen", closing.ReopenTenantView.as_view(), name="tenant-reopen"
    ),
    path("tenants/<str:tenant_id>/closure", closing.ClosureView.as_view(), name="tenant-closure"),
    path(
        "tenants/<str:tenant_id>/export", closing.TenantExportView.as_view(), name="tenant-export"
    ),
    path(
        "tenants/<str:tenant_id>/export/file",
        closing.TenantExportFileView.as_view(),
        name="tenant-export-file",
    ),
    path(
        "tenants/<str:tenant_id>/certificate",
        closing.CertificateView.as_view(),
        name="tenant-certificate",
    ),
    path("members", views.MembersView.as_view(), name="members"),
    path("members/<str:member_id>", views.MemberView.as_view(), name="member"),
    path("users", users.UsersView.as_view(), name="users"),
    path("users/<str:user_id>", users.UserView.as_view(), name="user"),
    path(
        "users/<str:user_id>/deactivate",
        users.DeactivateUserView.as_view(),
        name="user-deactivate",
    ),
    path(
        "users/<str:user_id>/reactivate",
        users.ReactivateUserView.as_view(),
        name="user-reactivate",
    ),
    path(
        "users/<str:user_id>/reset-password",
        users.ResetPasswordView.as_view(),
        name="user-reset-password",
    ),
    path(
        "service-accounts", service_accounts.ServiceAccountsView.as_view(), name="service-accounts"
    ),
    path(
        "service-accounts/<str:account_id>",
        service_accounts.ServiceAccountView.as_view(),
        name="service-account",
    ),
    path(
        "service-accounts/<str:account_id>/disable",
        service_accounts.DisableServiceAccountView.as_view(),
        name="service-account-disable",
    ),
    path(
        "service-accounts/<str:account_id>/enable",
        service_accounts.EnableServiceAccountView.as_view(),
        name="service-account-enable",
    ),
    path("keys", views.KeysView.as_view(), name="keys"),
    path("keys/<str:key_id>", views.KeyView.as_view(), name="key"),
    path("keys/<str:key_id>/rotate", views.RotateKeyView.as_view(), name="key-rotate"),
    path("keys/<str:key_id>/revoke", views.RevokeKeyView.as_view(), name="key-revoke"),
    path("quotas", views.QuotasView.as_view(), name="quotas"),
    path("quotas/<str:quota_id>", views.QuotaView.as_view(), name="quota"),
    path("quota-defaults", quota_defaults.QuotaDefaultsView.as_view(), name="quota-defaults"),
    path(
        "quota-defaults/<str:default_id>",
        quota_defaults.QuotaDefaultView.as_view(),
        name="quota-default",
    ),
    path("usage", usage.UsageView.as_view(), name="usage"),
]
