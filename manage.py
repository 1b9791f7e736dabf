#!/usr/bin/env python
"""Django's command line, for this portal."""

import os
import sys

# Commands that change the schema log in as its owner, who serves nothing.
OWNER_COMMANDS = {"migrate", "makemigrations", "sqlmigrate", "lintmigrations", "showmigrations"}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if len(sys.argv) > 1 and sys.argv[1] in OWNER_COMMANDS:
        os.environ["FREEHOLD_DATABASE_ROLE"] = "owner"
    from django.core.management import execute_from_command_line

    from portal.core.env import EnvironmentFault

    try:
        execute_from_command_line(sys.argv)
    except EnvironmentFault as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
