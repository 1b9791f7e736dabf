"""A stand-in for the product: what the supervisor runs, without what it does.

It answers on the web port, writes the demo data's facts, and its celery only waits for a signal.
"""

import os
import socket
from pathlib import Path

_MANAGE = """
import json, os, sys
from pathlib import Path
assert os.path.isdir(os.environ["FREEHOLD_DATA_DIR"])
with open(Path(__file__).with_name("calls"), "a") as calls:
    calls.write(sys.argv[1] + "\\n")
if sys.argv[1] == "roles":
    assert os.environ["DATABASE_URL_ADMIN"].startswith("postgresql://postgres:")
if Path(__file__).with_name("fails-" + sys.argv[1]).exists():
    sys.exit("ProgrammingError: the tables are upset")
if sys.argv[1] == "seed_demo":
    facts, target = {facts!r}, Path(sys.argv[3])
    known = json.loads(target.read_text()) if target.exists() else {}
    facts["api_key"] = known.get("api_key", "fh_x_" + str(os.getpid()))
    target.write_text(json.dumps(facts))
"""

_WEB = """
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"checks": {"database": true}}')
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""

_CELERY = """
import os, signal, sys
from pathlib import Path
name = "beat" if "beat" in sys.argv else sys.argv[sys.argv.index("-n") + 1].split("@")[0]
Path(os.environ["FREEHOLD_DATA_DIR"], name + ".pid").write_text(str(os.getpid()))
if Path("fails-" + name).exists():
    sys.exit("no model here")
if Path("stubborn-" + name).exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pause()
"""

FACTS = {
    "deployment": "demo",
    "queue": "inference.demo",
    "model": "smollm2",
    "api_key": "fh_x_y",
    **{
        f"{who}_{what}": f"{who}-{what}"
        for who in ("admin", "security", "auditor", "tenant_owner")
        for what in ("email", "password")
    },
}

_MAIN = """
import sys
from pathlib import Path
from portal.core.supervisor.__main__ import guarded
from portal.core.supervisor.installation import Installation
from portal.core.supervisor.progress import Progress
data_dir, port, root = sys.argv[1:]
run = Installation(Path(data_dir), "127.0.0.1", int(port), Progress(), Path(root)).run
sys.exit(guarded(run, Path(data_dir)))
"""


def make(root: Path) -> Path:
    """Write the stand-in's tree; returns the script that runs it under a supervisor."""
    portal = root / "portal"
    portal.mkdir(parents=True)
    (portal / "__init__.py").write_text("")
    (portal / "web.py").write_text(_WEB)
    (root / "celery").mkdir()
    (root / "celery" / "__init__.py").write_text("")
    (root / "celery" / "__main__.py").write_text(_CELERY)
    (root / "manage.py").write_text(_MANAGE.replace("{facts!r}", repr(FACTS)))
    (root / "requirements-embedded.txt").write_text("")
    main = root / "main.py"
    main.write_text(_MAIN)
    return main


def clean_env(**extra: str) -> dict[str, str]:
    """This process's environment without what would point at another installation."""
    ours = ("FREEHOLD_", "DATABASE_", "REDIS_", "SECRET_", "ENCRYPTION_", "API_KEY_", "DJANGO_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | extra


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
