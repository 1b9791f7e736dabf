"""Starts and stops an installation: what bin/start and bin/stop run."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from portal.core.supervisor import scratch
from portal.core.supervisor.faults import Fault, explain
from portal.core.supervisor.installation import ROOT, Installation, stop
from portal.core.supervisor.progress import Progress


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


def _arguments(words: list[str]) -> argparse.Namespace:
    default = Path(os.environ.get("FREEHOLD_DATA_DIR") or ROOT / "var")
    parser = argparse.ArgumentParser(prog="python -m portal.core.supervisor", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start everything", prog="bin/start")
    end = commands.add_parser("stop", help="stop everything", prog="bin/stop")
    for command in (start, end):
        command.add_argument(
            "--data-dir", type=Path, default=default, help=f"where data are kept ({default})"
        )
    start.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    start.add_argument("--port", type=_port, default=8000, help="port to listen on (8000)")
    start.add_argument("--check", action="store_true", help="only check whether it could start")
    around = commands.add_parser("scratch", help="run a command with throw-away servers")
    around.add_argument("words", nargs=argparse.REMAINDER, metavar="command")
    return parser.parse_args(words)


def guarded(work: Callable[[], object], place: Path) -> int:
    """Do something; the exit status is 0, or 1 with one line on standard error."""
    try:
        work()
    except Fault as fault:
        sys.stderr.write(f"freehold: {fault}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"freehold: {explain(error, place)}\n")
        return 1
    return 0


def main(words: list[str] | None = None) -> int:
    """Run a command and return its exit status."""
    asked = _arguments(sys.argv[1:] if words is None else words)
    if asked.command == "scratch":
        return scratch.run([word for word in asked.words if word != "--"])
    if asked.command == "stop":
        return guarded(lambda: stop(asked.data_dir, Progress().line), asked.data_dir)
    installation = Installation(asked.data_dir, asked.host, asked.port, Progress())
    return guarded(installation.check if asked.check else installation.run, asked.data_dir)


if __name__ == "__main__":
    sys.exit(main())
