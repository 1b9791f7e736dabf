"""Servers, tenants and doubles of Dify for what measures how knowledge is kept in step."""

import os
from typing import Any, Self

from tests.servers import SessionServers


class Stage:
    """A database of its own and Django on it; a context manager.

    Only one can be made in a process, for Django's settings are read once.
    """

    def __init__(self) -> None:
        self._servers = SessionServers()
        self._servers.enter_environment()
        os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"
        os.environ["LOG_LEVEL"] = "error"
        self._doubles: list[Any] = []

    def __enter__(self) -> Self:
        import django

        django.setup()
        self._servers.start()
        return self

    def __exit__(self, *_: object) -> None:
        from django.db import connection

        for double in self._doubles:
            double.close()
        connection.close()
        self._servers.stop()

    def bench(self) -> Any:
        """A fresh tenant with a fresh double; the double stands until ``leave``."""
        from tests.factories import organisation
        from tests.knowledge.dify.double import DifyDouble
        from tests.knowledge.sync.bench import Bench

        double = DifyDouble()
        self._doubles.append(double)
        return Bench(organisation("in-step"), double, self._servers.url("gateway"))

    def leave(self, bench: Any) -> None:
        """Lets a bench's double go."""
        self._doubles.remove(bench.double)
        bench.double.close()

    def put(self, base: Any, name: str, text: str) -> None:
        """A document that has been read, at once."""
        from knowledge.indexing import read_step
        from knowledge.services import add_text
        from portal.core.actors import Context

        context = Context.system("benchmark", tenant_id=base.tenant_id)
        made = add_text(context=context, knowledge_base_id=base.pk, name=name, text=text)
        read_step(base.tenant_id, made.pk)

    def settle(self, bench: Any, *, most: int = 2_000) -> None:
        """Looks at Dify and runs, as often as it takes, waiting as the runner says."""
        from knowledge.sync.selectors import steps_of
        from portal.core.tenancy import tenant_scope

        for number in range(most):
            bench.run(look=number == 0)
            with tenant_scope(bench.context):
                if not [step for step in steps_of(bench.connection) if step.verb != "conflict"]:
                    return
        raise SystemExit("It does not come to an end.")
