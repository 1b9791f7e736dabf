"""Measures the gateway: every request durable, charged and audited, on PostgreSQL and Celery.

Starts an installation of its own (servers, web, workers, beat) with the engine ``fake``, loads it
from a separate process, and prints a table. ``--against`` measures another OpenAI-compatible
gateway in the same run, alternating, for ratios that do not depend on the machine.
"""

import argparse
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):
    # In the place of this file's own folder, where queue.py would hide Python's own module.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.lib.comparison import Campaign, Peer
from benchmarks.lib.portal import Portal
from benchmarks.lib.report import print_table, write_json


def main() -> None:
    arguments = _arguments()
    peer = None
    if arguments.against:
        peer = Peer.of(arguments.against, arguments.key, arguments.model)
        peer.require_answer()
    with tempfile.TemporaryDirectory(prefix="freehold-bench-", ignore_cleanup_errors=True) as home:
        Path(home).chmod(0o711)
        with Portal(Path(home) / "portal", tenants=arguments.tenants) as portal:
            campaign = Campaign(portal, peer, scale=arguments.scale)
            figures = campaign.run()
    print_table(figures)
    if arguments.json:
        write_json(figures, arguments.json)
    if figures.faults:
        raise SystemExit("Faults: " + "; ".join(figures.faults))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", metavar="URL", help="another gateway, such as http://host:4000"
    )
    parser.add_argument("--key", default="", help="its API key")
    parser.add_argument("--model", default="gpt-4o-mini", help="its model (gpt-4o-mini)")
    parser.add_argument("--tenants", type=int, default=1, help="tenants that call in turn (1)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.05 for a twentieth of the time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
