"""Makes what the way through the portal is measured on: a real model, and one that tells the time.

``python -m benchmarks.lib.engines.serving ARTEFACT``, on a seeded installation.
"""

import os
import sys
from pathlib import Path
from typing import Final

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

import django

MODEL: Final = "engines-model"
CLOCK: Final = "engines-clock"
STEP_MS: Final = 5


def main() -> None:
    django.setup()
    from benchmarks.lib.engines.contenders import CACHE_MB, SLOTS
    from benchmarks.lib.seed import deploy
    from inference.artefacts import load_manifest
    from inference.services import create_deployment, register_model_version
    from portal.core.actors import Context

    context = Context.system("benchmark")
    folder = Path(sys.argv[1])
    version = register_model_version(
        context=context, name=MODEL, label="1", manifest=load_manifest(folder), path=folder
    )
    create_deployment(
        context=context,
        name=MODEL,
        version_id=version.id,
        engine="openvino",
        options={"slots": SLOTS, "cache_mb": CACHE_MB},
    )
    deploy(context, CLOCK, {"token_ms": STEP_MS, "clock": True})


if __name__ == "__main__":
    main()
