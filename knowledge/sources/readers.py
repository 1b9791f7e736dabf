"""Which reader reads which kind of source."""

from knowledge.models import DocumentSource
from knowledge.sources.folders import open_folder
from knowledge.sources.reading import Opened
from knowledge.sources.settings import FolderSettings, folder_root, read_settings
from tenants.models import Tenant


def plan_reading(source: DocumentSource) -> Opened:
    """A reader of a source, not opened yet; in the open scope, which opening it needs no more.

    Raises:
        Invalid: what is set can't be read here any more.
    """
    return reading_of(source, read_settings(source.kind, source.settings))


def reading_of(source: DocumentSource, settings: FolderSettings) -> Opened:
    """As ``plan_reading``, of settings that are checked already."""
    slug = Tenant.objects.values_list("slug", flat=True).get(pk=source.tenant_id)
    return open_folder(folder_root(slug), settings.path, settings.include)
