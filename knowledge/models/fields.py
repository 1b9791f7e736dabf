"""pgvector's column type, of which Django knows nothing."""

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class VectorField(models.Field[Any, Any]):
    """A vector of any length, written and compared in SQL alone."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "vector"


class HalfVectorField(VectorField):
    """A vector of numbers of 16 bits."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        return "halfvec"
