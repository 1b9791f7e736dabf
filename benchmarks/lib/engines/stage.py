"""One contender in its process: ``python -m benchmarks.lib.engines.stage NAME WHERE ARTEFACT``.

Reads a line of JSON a run (``concurrency``, ``requests``, ``tokens``) and answers with one
(``seconds``, ``tokens``); ends with its input.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[3]


class Stage:
    """The benchmark's side of a contender's process; it is ready once made.

    Args:
        where: the contender's folder or URL.
        artefact: where the tokenizer of the prompts is.
    """

    def __init__(self, name: str, where: str, artefact: Path) -> None:
        self.name = name
        # Threads that spin while they wait would take the cores from whoever runs beside them.
        environment = {
            **os.environ,
            "OMP_WAIT_POLICY": "passive",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lib.engines.stage", name, where, str(artefact)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._answer()

    def rate(self, *, concurrency: int, requests: int, tokens: int) -> float:
        """Tokens a second of one run."""
        assert self._process.stdin is not None
        plan = {"concurrency": concurrency, "requests": requests, "tokens": tokens}
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        told = self._answer()
        return float(told["tokens"] / told["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            # Libraries print there too.
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                return told
        raise SystemExit(f"{self.name} ended with status {self._process.wait()}; see above.")


def main() -> None:
    from benchmarks.lib.engines.contenders import MAKERS
    from benchmarks.lib.engines.prompts import prompts

    name, where, artefact = sys.argv[1:]
    contender = MAKERS[name](where)
    print("{}", flush=True)
    for line in sys.stdin:
        plan = json.loads(line)
        asked = prompts(Path(artefact), plan["requests"])
        begun = time.perf_counter()
        made = contender.run(asked, plan["tokens"], plan["concurrency"])
        took = time.perf_counter() - begun
        print(json.dumps({"seconds": took, "tokens": made}), flush=True)
    contender.close()


if __name__ == "__main__":
    main()
