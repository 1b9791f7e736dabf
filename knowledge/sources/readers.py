"""Which reader reads which kind of source."""

from collections.abc import Callable, Mapping
from typing import Final

from knowledge.models import DocumentSource, SourceKind
from knowledge.sources.database import Reach
from knowledge.sources.folders import open_folder
from knowledge.sources.mongodb import open_mongodb
from knowledge.sources.mysql import open_mysql
from knowledge.sources.postgresql import open_postgresql
from knowledge.sources.reading import Opened
from knowledge.sources.settings import (
    DatabaseSettings,
    FolderSettings,
    Settings,
    folder_root,
    read_settings,
)
from knowledge.sources.vault import password_of
from tenants.models import Tenant

_Open = Callable[[DatabaseSettings, str, Reach], Opened]
_DATABASES: Final[Mapping[str, _Open]] = {
    SourceKind.POSTGRESQL: open_postgresql,
    SourceKind.MYSQL: open_mysql,
    SourceKind.MONGODB: open_mongodb,
}


def plan_reading(source: DocumentSource, *, full: bool = True) -> Opened:
    """A reader of a source, not opened yet; in the open scope, which opening it needs no more.

    Args:
        full: everything is read; else from where the last run ended.

    Raises:
        Invalid: what is set can't be read here any more.
    """
    reach = Reach(full, source.last_key)
    return reading_of(source, read_settings(source.kind, source.settings), reach)


def reading_of(
    source: DocumentSource,
    settings: Settings,
    reach: Reach = Reach(full=True),  # noqa: B008
) -> Opened:
    """As ``plan_reading``, of settings that are checked already."""
    if isinstance(settings, FolderSettings):
        slug = Tenant.objects.values_list("slug", flat=True).get(pk=source.tenant_id)
        return open_folder(folder_root(slug), settings.path, settings.include)
    return _DATABASES[source.kind](settings, password_of(source), reach)
