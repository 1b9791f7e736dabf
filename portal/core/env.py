"""Everything an operator can set, typed, in one place.

A value comes from the environment, else from a file of the same name (lower case) in
``<data_dir>/secrets/``, else from its default. All faults are reported together.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from portal.core.http import parse_network

DatabaseRole = Literal["app", "gateway", "sealer", "owner"]


class Env(BaseSettings):
    """The process's environment; frozen once read."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    freehold_data_dir: Path = Field(
        Path("var"), description="Folder of everything this installation keeps on disk."
    )
    freehold_database_role: DatabaseRole = Field(
        "app", description="Which login role this process uses for Django's connection."
    )
    freehold_planes: Literal["both", "control", "data"] = Field(
        "both", description="Which planes the web process serves; one each in production."
    )
    database_url_app: SecretStr | None = Field(
        None,
        description="PostgreSQL URL of the control plane and the io workers (role portal_app).",
    )
    database_url_gateway: SecretStr | None = Field(
        None, description="PostgreSQL URL of gateway and inference worker (role portal_gateway)."
    )
    database_url_sealer: SecretStr | None = Field(
        None, description="PostgreSQL URL of the audit sealer (role portal_sealer)."
    )
    database_url_owner: SecretStr | None = Field(
        None, description="PostgreSQL URL that migrates (role portal_owner); never serves."
    )
    database_url_admin: SecretStr | None = Field(
        None, description="PostgreSQL URL with CREATEROLE, for `manage.py roles` only."
    )
    database_role_prefix: str = Field(
        "", pattern=r"^[a-z0-9_]{0,20}$", description="Put before the name of every database role."
    )
    redis_url: SecretStr = Field(description="Redis or Valkey: wake-ups and token streams.")
    secret_key: SecretStr = Field(description="Django's signing key for sessions and forms.")
    encryption_keys: SecretStr = Field(
        description="Key-encryption keys, newest last: `1:<base64 of 32 bytes>,2:...`."
    )
    upstream_api_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys of serving engines that run elsewhere: `name:key,...`; a deployment's"
        " option `key_name` says which it sends.",
    )
    api_key_peppers: SecretStr = Field(
        description="HMAC peppers of API keys, newest last: `1:<base64 of 32 bytes>,...`."
    )
    allowed_hosts: str = Field(
        "localhost,127.0.0.1,[::1]", description="Host names this portal answers to, by commas."
    )
    trusted_proxies: str = Field(
        "", description="Networks (CIDR, by commas) whose X-Forwarded-For is believed."
    )
    cookie_secure: bool = Field(
        False, description="Send cookies over HTTPS only; set it wherever TLS is in front."
    )
    debug: bool = Field(False, description="Django's debug pages; never in production.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] = Field("json", description="Shape of log lines.")
    worker_deployment: str = Field(
        "", description="Name of the deployment that this inference worker serves."
    )
    mirror_token: SecretStr | None = Field(
        None,
        description="Bearer token for the mirror that `manage.py model import --mirror` is given.",
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest request body on /v1, in bytes."
    )
    max_file_bytes: int = Field(
        100_000_000,
        ge=1024,
        description="Largest file that can be uploaded to /v1/files, in bytes.",
    )
    max_tenant_file_bytes: int = Field(
        2_000_000_000, ge=1024, description="What a tenant's files may take together, in bytes."
    )
    file_days: int = Field(
        30, ge=1, le=365, description="Days that a file is kept unless its caller says otherwise."
    )
    max_batch_lines: int = Field(
        50_000, ge=1, description="Most requests in the input file of a batch."
    )
    max_live_batches: int = Field(
        100, ge=1, description="Most batches of a tenant that have not ended."
    )
    batch_in_flight: int = Field(
        64, ge=1, le=1000, description="Most requests of one batch that wait or run at a time."
    )
    max_tenant_knowledge_bytes: int = Field(
        2_000_000_000,
        ge=1024,
        description="What the documents of a tenant's knowledge bases may take together, in bytes.",
    )
    document_slots: int = Field(
        2,
        ge=0,
        description="Documents of knowledge bases that an io worker reads at once, each in up to "
        "1.5 GB of memory; with 0 it reads and indexes none.",
    )
    sync_slots: int = Field(
        4,
        ge=0,
        description="Connections that an io worker keeps in step with Dify at once; with 0 it "
        "keeps none.",
    )
    max_tenant_events: int = Field(
        200_000,
        ge=100,
        description="Most events that the streams of a tenant hold at a time; more are refused.",
    )
    event_days: int = Field(
        7, ge=2, le=365, description="How long an event that triggers have looked at is kept."
    )
    lease_seconds: float = Field(
        6.0, gt=0.5, description="How long a claimed job stays its worker's without a heartbeat."
    )
    heartbeat_seconds: float = Field(
        1.0, gt=0.05, description="How often a worker renews its leases and writes watermarks."
    )
    drain_seconds: float = Field(
        30.0, ge=0, description="How long a stopping worker lets running generations finish."
    )
    max_attempts: int = Field(3, ge=1, description="Runs of a job before it is dead-lettered.")
    metrics_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Bearer token, of 16 characters at least, with which /metrics may be read from "
        "other machines; without it, from this machine alone.",
    )
    queue_timeout_seconds: float = Field(
        600.0, gt=0, description="How long an interactive job may wait or run before it is ended."
    )
    closing_grace_days: int = Field(
        30, ge=0, le=365, description="How long a closing tenant can be reopened before deletion."
    )
    export_keep_hours: float = Field(
        168.0, gt=0, description="How long the file of a tenant's export is kept for download."
    )

    webhook_networks: str = Field(
        "public",
        description="Where webhooks may go, by commas: `public` for every public address, by https "
        "alone, and networks (CIDR) such as `10.0.0.0/8`, by http too. Private and loopback "
        "addresses only if listed; link-local and cloud metadata addresses never.",
    )
    webhook_slots: int = Field(
        64, ge=0, description="Webhooks that an io worker sends at once; with 0 it sends none."
    )
    webhook_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that webhooks' receivers may have, beside "
        "the public ones.",
    )

    dify_networks: str = Field(
        "public",
        description="Where instances of Dify may stand, by commas, in the way of "
        "`WEBHOOK_NETWORKS`: `public`, and networks such as `10.0.0.0/8`.",
    )
    dify_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that instances of Dify may have, beside "
        "the public ones.",
    )

    source_folders: str = Field(
        "",
        description="Folders that tenants may have watched, by commas: `acme=/srv/knowledge/acme` "
        "gives the tenant with the short name `acme` that folder and those below it. None unless "
        "listed. Web and io processes need them under the same path.",
    )
    source_networks: str = Field(
        "public",
        description="Where databases may stand that documents are read out of, by commas: "
        "`public` for every public address, with TLS alone, and networks such as `10.0.0.0/8`, "
        "without it too.",
    )
    source_ca_file: Path | None = Field(
        None,
        description="PEM file of the certificate authorities that such databases may have; without "
        "it, those of the system.",
    )
    source_slots: int = Field(
        2,
        ge=0,
        description="Sources of documents that an io worker reads at once; with 0 it reads none.",
    )

    @field_validator("source_folders")
    @classmethod
    def _known_folders(cls, text: str) -> str:
        for slug, root in _folders(text):
            if not slug or not Path(root).is_absolute():
                raise ValueError("each entry is a tenant's short name, '=', and an absolute path")
        return text

    @property
    def source_roots(self) -> dict[str, Path]:
        """The folder of each tenant that has one, by its short name."""
        return {slug: Path(root) for slug, root in _folders(self.source_folders)}

    portal_url: str = Field(
        "",
        description="Where instances of Dify reach this portal, such as `https://ai.example.com`: "
        "apps that run there use its models and its knowledge. Without it no app runs in Dify.",
    )

    @field_validator("portal_url")
    @classmethod
    def _web_address(cls, text: str) -> str:
        if text and not re.fullmatch(r"https?://[^\s?#]{1,290}", text):
            raise ValueError("must begin with https:// or http://, without ? and #")
        return text

    @field_validator("webhook_networks", "dify_networks", "source_networks")
    @classmethod
    def _known_networks(cls, text: str) -> str:
        for entry in filter(None, map(str.strip, text.split(","))):
            if entry != "public":
                parse_network(entry)
        return text

    def database_url(self, role: DatabaseRole) -> str:
        """The PostgreSQL URL of a login role.

        Raises:
            EnvironmentFault: if this process was not given it.
        """
        url: SecretStr | None = getattr(self, f"database_url_{role}")
        if url is None:
            raise EnvironmentFault(
                f"DATABASE_URL_{role.upper()} is not set, and this process needs it."
            )
        return url.get_secret_value()


def _folders(text: str) -> list[tuple[str, str]]:
    parts = [entry.partition("=") for entry in text.split(",") if entry.strip()]
    return [(slug.strip(), root.strip()) for slug, _, root in parts]


class EnvironmentFault(Exception):
    """The environment is unusable; the message lists every fault at once."""


def _read() -> Env:
    data_dir = Path(os.environ.get("FREEHOLD_DATA_DIR", "var"))
    secrets = data_dir / "secrets"
    try:
        return Env(_secrets_dir=secrets if secrets.is_dir() else None)
    except ValidationError as fault:
        lines = [f"  {'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in fault.errors()]
        raise EnvironmentFault(
            "The environment is not usable:\n"
            + "\n".join(lines)
            + f"\nSet the variables, or run bin/start, which writes them under {secrets}."
        ) from None


@cache
def env() -> Env:
    """The environment of this process, read once.

    Raises:
        EnvironmentFault: with every missing or malformed value in one report.
    """
    return _read()
