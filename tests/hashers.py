"""A password hasher that costs nothing, for accounts that only tests know."""

from django.contrib.auth.hashers import ScryptPasswordHasher


class QuickScrypt(ScryptPasswordHasher):
    """Scrypt at its least work; a hash names its work, so the product verifies it too."""

    work_factor = 2
