"""What can be asked for: models, their versions and prices, and where they run.

These belong to the platform, not to a tenant.
"""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel


class Task(models.TextChoices):
    """What a model does, and by that which endpoints of ``/v1`` it answers."""

    GENERATE = "generate", _("generates text")
    EMBED = "embed", _("makes embeddings")
    RERANK = "rerank", _("ranks documents")


class Model(IdModel):
    """A model by the name that callers use."""

    name = models.SlugField(_("name"), max_length=80, unique=True)
    title = models.CharField(_("title"), max_length=120)
    description = models.TextField(_("description"), blank=True)
    least_agreement = models.FloatField(
        _("least agreement"),
        default=0.97,
        db_default=0.97,
        help_text=_(
            "Share of places, 0 to 1, where a quantized version must choose the unquantized "
            "model's token."
        ),
    )
    most_size = models.FloatField(
        _("largest size"),
        default=0.30,
        db_default=0.30,
        help_text=_("Of a quantized version's weights, over their size in fp32."),
    )
    task = models.CharField(
        _("task"), max_length=10, choices=Task, default=Task.GENERATE, db_default=Task.GENERATE
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ModelVersion(IdModel):
    """One artefact of a model, known by the digest of its weights.

    ``files`` has SHA-256 and size of each by name, as the artefact's manifest had them when it was
    registered; null for versions that were registered without.
    """

    model = models.ForeignKey(Model, models.PROTECT, related_name="versions")
    label = models.CharField(_("version"), max_length=40)
    digest = models.CharField(
        _("digest"),
        max_length=64,
        help_text=_("SHA-256 of the weights' file, or of the list of a folder's files."),
    )
    path = models.CharField(_("folder"), max_length=500)
    architecture = models.CharField(_("architecture"), max_length=60, blank=True)
    quantization = models.CharField(_("quantization"), max_length=40, blank=True)
    context_length = models.PositiveIntegerField(_("context length"))
    licence = models.CharField(_("licence"), max_length=80, blank=True)
    format = models.CharField(_("format"), max_length=20, blank=True, default="", db_default="")
    provenance = models.CharField(
        _("provenance"), max_length=500, blank=True, default="", db_default=""
    )
    files = models.JSONField(_("files"), null=True, blank=True)
    quality = models.JSONField(
        _("quality"),
        null=True,
        blank=True,
        help_text=_("What was measured of quantized weights; nothing for others."),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("model version")
        verbose_name_plural = _("model versions")
        constraints = [
            models.UniqueConstraint(fields=["model", "label"], name="one_version_a_label")
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.label}"

    @property
    def sku(self) -> str:
        """What the ledger calls it."""
        return f"{self.model.name}@{self.label}"


class CheckState(models.TextChoices):
    """Where a check of a version's files is, or how it ended."""

    WAITING = "waiting", _("waiting")
    RUNNING = "running", _("running")
    GOOD = "good", _("as registered")
    BAD = "bad", _("not as registered")


class ModelCheck(models.Model):
    """The newest check of a version's files that somebody asked for.

    Whoever runs it writes how far it is, and holds it by the moment at which it began until
    ``lease_until``. ``faults`` lists file and fault of each that is not as registered, ``detail``
    says in words why the files could not be read.
    """

    version = models.OneToOneField(
        ModelVersion, models.CASCADE, primary_key=True, related_name="check_asked"
    )
    state = models.CharField(_("state"), max_length=10, choices=CheckState)
    asked_at = models.DateTimeField(_("asked"))
    asked_by = models.CharField(_("asked by"), max_length=200, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    read_bytes = models.BigIntegerField(default=0)
    total_bytes = models.BigIntegerField(default=0)
    file = models.CharField(_("file"), max_length=500, blank=True)
    faults = models.JSONField(_("faults"), default=list)
    detail = models.CharField(_("detail"), max_length=500, blank=True)

    class Meta:
        verbose_name = _("file check")
        verbose_name_plural = _("file checks")

    def __str__(self) -> str:
        return f"{self.version}: {self.state}"

    @property
    def percent(self) -> int:
        """How much of the files has been read."""
        return min(100, 100 * self.read_bytes // self.total_bytes) if self.total_bytes else 0


class ModelPrice(IdModel):
    """What a version costs from a moment on, in micro-units of currency a million tokens."""

    version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="prices")
    effective_from = models.DateTimeField(_("from"))
    prompt_micros_per_million = models.BigIntegerField(_("prompt price"))
    completion_micros_per_million = models.BigIntegerField(_("completion price"))
    currency = models.CharField(_("currency"), max_length=3, default="USD")

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints = [
            models.UniqueConstraint(
                fields=["version", "effective_from"], name="one_price_a_moment"
            ),
            models.CheckConstraint(
                condition=Q(prompt_micros_per_million__gte=0, completion_micros_per_million__gte=0),
                name="price_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.effective_from:%Y-%m-%d}"


class Deployment(IdModel):
    """A version that is served: by which engine, on which queue.

    The queue is a Celery queue; the workers that consume it are the deployment's pool. Several
    enabled deployments of a model are its replicas.
    """

    name = models.SlugField(_("name"), max_length=60, unique=True)
    model = models.ForeignKey(Model, models.PROTECT, related_name="deployments")
    version = models.ForeignKey(ModelVersion, models.PROTECT, related_name="deployments")
    engine = models.CharField(_("engine"), max_length=20, default="auto")
    options = models.JSONField(_("engine options"), default=dict, blank=True)
    queue = models.SlugField(_("queue"), max_length=60, unique=True)
    context_length = models.PositiveIntegerField(_("context length"))
    default_max_tokens = models.PositiveIntegerField(_("default max_tokens"), default=1024)
    enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("deployment")
        verbose_name_plural = _("deployments")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(context_length__gt=0, default_max_tokens__gt=0),
                name="deployment_lengths_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name
