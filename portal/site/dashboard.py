"""What each role sees first."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inference.admin import JOB_STATE_KINDS, WORKER_STATE_KINDS, Health, duration_text, health_of
from inference.models import Deployment, Job, JobState, Worker
from portal.core.actors import Context
from portal.core.pages import context_of
from portal.core.tenancy import platform_scope
from tenants.admin.common import TENANT_STATE_KINDS
from tenants.admin.usage import (
    LEVEL_KINDS,
    amount_text,
    level_text,
    limit_labels,
    reset_text,
    usage_of,
)
from tenants.models import ApiKey, Membership, Quota, QuotaWarning, Tenant, User
from tenants.models.keys import ApiKeyKind
from tenants.permissions import Action, actions_of
from tenants.querysets import recent_warnings
from tenants.selectors import warnings_under_way

_RECENT = 6
_MOST_WARNINGS = 12
# Each is of a level, and of each limit only the highest is shown.
_MOST_READ = 500


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's callback: the overview of a tenant, or of the platform."""
    caller = context_of(request)
    context["title"] = _("Overview")
    if caller.tenant_id is not None:
        return {**context, "board": "site/board_tenant.html", **tenant_board(caller)}
    return {**context, "board": "site/board_platform.html", **platform_board(caller)}


@dataclass(frozen=True, slots=True)
class RecentJob:
    """A line of the list of recent jobs."""

    link: str
    when: datetime
    kind: str
    state: str
    sku: str
    tokens: int
    took: str


def tenant_board(context: Context) -> dict[str, Any]:
    """A tenant's overview, as far as the caller's actions go; the tenant's scope is open."""
    may = actions_of(context)
    assert context.tenant_id is not None
    board: dict[str, Any] = {"tenant": Tenant.objects.get(pk=context.tenant_id)}
    if Action.QUOTA_READ in may:
        board |= _quota_board(board["tenant"])
        board["warnings"] = _warning_lines(recent_warnings())
    if Action.JOB_READ in may:
        board["show_jobs"] = True
        board["jobs"] = [_recent(job) for job in Job.objects.order_by("-id")[:_RECENT]]
    if Action.KEY_READ in may:
        board["show_keys"] = True
        board["keys"] = _live_keys()
    if Action.MEMBER_READ in may:
        board["members"] = Membership.objects.count()
    board["may_set_limits"] = Action.QUOTA_EDIT in may
    board["may_make_key"] = Action.KEY_CREATE in may
    board["may_play"] = Action.PLAYGROUND_USE in may
    board["may_audit"] = Action.AUDIT_READ in may
    return board


def _quota_board(tenant: Tenant) -> dict[str, Any]:
    own = Quota.objects.filter(user=None, api_key=None, model_id=None).select_related("window")
    quota = own.first()
    if quota is None:
        return {"show_quota": True, "usages": [], "counted": []}
    usages = usage_of(quota, getattr(quota, "window", None), tenant.time_zone)
    return {
        "show_quota": True,
        "quota": quota,
        "usages": [u for u in usages if u.limit is not None],
        "counted": [u for u in usages if u.name in ("tokens_month", "requests_month")],
    }


@dataclass(frozen=True, slots=True)
class WarningLine:
    """A limit that was drawn on to a level, on the overview."""

    warning: QuotaWarning
    link: str
    kind: str
    level: str
    limit: str
    taken: str
    resets: str


def _warning_lines(
    found: QuerySet[QuotaWarning], *, across_tenants: bool = False
) -> list[WarningLine]:
    """What people were warned of in the windows under way; the open scope says whose."""
    labels = limit_labels()
    now = timezone.now()
    told = found.select_related("quota__user", "quota__api_key", "tenant")
    lines = []
    for warning in warnings_under_way(told[:_MOST_READ])[:_MOST_WARNINGS]:
        name, zone = warning.limit_name, warning.tenant.time_zone
        if across_tenants:
            link = reverse("admin:tenants_tenant_change", args=[warning.tenant_id])
        else:
            link = reverse("admin:tenants_quota_change", args=[warning.quota_id])
        lines.append(
            WarningLine(
                warning,
                link,
                LEVEL_KINDS[warning.level],
                level_text(warning.level),
                labels[name],
                gettext("%(used)s of %(limit)s")
                % {
                    "used": amount_text(warning.taken, name),
                    "limit": amount_text(warning.maximum, name),
                },
                reset_text(name.rpartition("_")[2], now, zone),
            )
        )
    return lines


def _live_keys() -> int:
    live = ApiKey.objects.filter(kind=ApiKeyKind.STANDARD, revoked_at=None)
    return live.exclude(expires_at__lte=timezone.now()).count()


def _recent(job: Job) -> RecentJob:
    state = JobState(job.state)
    return RecentJob(
        link=reverse("admin:inference_job_change", args=[job.pk]),
        when=job.admitted_at,
        kind=JOB_STATE_KINDS[state],
        state=str(state.label),
        sku=job.sku,
        tokens=job.prompt_tokens + job.watermark,
        took=duration_text(job.finished_at - job.admitted_at) if job.finished_at else "",
    )


@dataclass(frozen=True, slots=True)
class DeploymentLine:
    """A deployment on the platform's overview."""

    deployment: Deployment
    link: str
    health: Health
    queued: int
    running: int
    workers: tuple[tuple[Worker, str], ...]


def platform_board(context: Context) -> dict[str, Any]:
    """The platform's overview, as far as the caller's actions go."""
    may = actions_of(context)
    board: dict[str, Any] = {
        "may_create_tenant": Action.TENANT_CREATE in may,
        "may_audit": Action.AUDIT_READ_ALL in may,
        "show_users": Action.USER_READ in may,
        "show_deployments": Action.DEPLOYMENT_READ in may,
        "show_warnings": Action.QUOTA_READ in may,
    }
    with platform_scope(replace(context, tenant_id=None), reason="the overview of the platform"):
        tenants = Tenant.objects.annotate(member_count=Count("memberships")).order_by("name")
        board["tenant_count"] = tenants.count()
        board["tenants"] = [(t, TENANT_STATE_KINDS[t.state]) for t in tenants[:12]]
        board["user_count"] = User.objects.filter(is_active=True).count()
        if board["show_deployments"]:
            board["deployments"] = _deployment_lines()
        if board["show_warnings"]:
            whole = recent_warnings().filter(quota__user=None, quota__api_key=None)
            board["warnings"] = _warning_lines(whole, across_tenants=True)
    lines = board.get("deployments", [])
    board["troubles"] = [line for line in lines if line.health.kind in ("danger", "warning")]
    if board["show_deployments"] and not lines:
        board["no_deployment"] = gettext("Nothing is deployed: no model can be called.")
    return board


def _deployment_lines() -> list[DeploymentLine]:
    now = timezone.now()
    found = (
        Deployment.objects.select_related("model", "version")
        .prefetch_related("workers")
        .annotate(
            queued=Count("jobs", filter=Q(jobs__state=JobState.QUEUED)),
            under_way=Count("jobs", filter=Q(jobs__state=JobState.RUNNING)),
        )
        .order_by("name")
    )
    lines = []
    for deployment in found:
        workers = list(deployment.workers.all())
        lines.append(
            DeploymentLine(
                deployment,
                reverse("admin:inference_deployment_change", args=[deployment.pk]),
                health_of(deployment, workers, now),
                deployment.queued,
                deployment.under_way,
                tuple((w, WORKER_STATE_KINDS[w.state]) for w in workers),
            )
        )
    return lines
