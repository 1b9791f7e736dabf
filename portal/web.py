"""``python -m portal.web``: the web process."""

import argparse

import uvicorn

from portal.core.env import EnvironmentFault, env


def main() -> None:
    parser = argparse.ArgumentParser(prog="portal.web", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        env().database_url(env().freehold_database_role)
    except EnvironmentFault as fault:
        raise SystemExit(str(fault)) from None
    uvicorn.run(
        "portal.asgi:create_app",
        factory=True,
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        backlog=2048,
        access_log=False,
        log_config=None,
        # The portal decides itself which proxies it believes.
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=int(env().drain_seconds),
    )


if __name__ == "__main__":
    main()
