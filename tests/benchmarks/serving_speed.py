"""Measures what an explained answer costs, beside an empty one of the same service and beside MLflow with SHAP, in one run.

Usage: `uv run python tests/benchmarks/serving_speed.py` (about 3 minutes on an idle machine; it needs `wrk`, in Debian's package of that
name). The service runs as `renewcast serve` runs it, with one worker: BentoML's process, all layers of the application, the check of the
key and the journal. Its empty address asks for no key. CPU is that of the server's whole tree of processes, divided by the answers; the
sides take turns, and each ratio is the median over the rounds of the ratio within a round. A machine that does other things at the same
time makes all sides dearer, but not by the same factor.

Measured on 2 idle cores in two runs of one round, microseconds of CPU an answer: empty 391 and 311, by id 415 and 369 (1.06 and 1.19
times), by row 1,254 and 1,015, while bare `pred_contrib` of the same three models takes 901 and 876 for the row ((by row - 1.3 empty) /
pred_contrib = 0.83 and 0.70), MLflow with SHAP 4,600 and 3,702 (10 times by id, 3.7 times by row); 10,000 accounts in one call 344,000 and
368,000 explained scores a second.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
from comparison import Comparison, Found, absent, compared, table
from speed_book import TARGETS, BookSize, make_book

from features.workspace import Workspace
from serving.callers.credentials import opened_identity
from serving.permissions.caller import VENDOR
from serving.scores.batch import score_workspace
from serving.scores.explained import json_value
from serving.scores.scoring import ScoreSet, load_score_set

HERE = Path(__file__).parent
SCORES_A_SECOND = 20_000
"""How many explained scores are meant to come a second where 10,000 accounts are asked for at once."""


@dataclass(frozen=True)
class Side:
    """One kind of request: where it goes, what it sends, and whose CPU it costs."""

    name: str
    url: str
    headers: dict[str, str]
    body: bytes | None
    server: psutil.Process


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], ready: str, *, log: Path) -> Iterator[psutil.Process]:
    """Run a server until the block ends, once it answers at an address."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # where mlflow finds its own commands
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1])))}
    with log.open("wb") as file, subprocess.Popen(command, cwd=HERE, stdout=file, stderr=file, env=environment) as process:
        try:
            wait_for(ready, process, log)
            yield psutil.Process(process.pid)
        finally:
            if process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                for each in (*children, process):
                    each.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the address answers."""
    for _ in range(600):
        try:
            with urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
        if process.poll() is not None:
            break
    raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def cpu_seconds(server: psutil.Process) -> float:
    """Return what a server and its children have used."""
    return sum(sum(each.cpu_times()[:2]) for each in (server, *server.children(recursive=True)))


def cost(side: Side, *, seconds: int) -> float:
    """Return CPU microseconds an answer, with one connection."""
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in side.headers.items()]
    if side.body is not None:
        lines += ['wrk.method = "POST"', f"wrk.body = [==[{side.body.decode()}]==]"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        subprocess.run(["wrk", "-t1", "-c1", "-d1s", "-s", script.name, side.url], capture_output=True, check=True)  # what is made once
        before = cpu_seconds(side.server)
        command = ["wrk", "-t1", "-c1", f"-d{seconds}s", "-s", script.name, side.url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used, found = cpu_seconds(side.server) - before, re.search(r"(\d+) requests in", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"{side.name}: not all answers were good\n{said}")
    if found[1] == "0":
        raise SystemExit(f"{side.name}: no answer within {seconds} s; ask for more seconds, or on a machine with less other work")
    return 1e6 * used / int(found[1])


def bare_cost(score_set: ScoreSet, matrix: np.ndarray, *, seconds: float = 1.0) -> float:
    """Return CPU microseconds of LightGBM's own explanation of one row by the three models."""
    boosters = [package.booster for package in score_set.packages.values()]
    started, times = time.thread_time(), 0
    while time.thread_time() - started < seconds:
        for booster in boosters:
            booster.predict(matrix, pred_contrib=True, num_threads=1)
        times += 1
    return 1e6 * (time.thread_time() - started) / times


def scores_a_second(side: Side, accounts: list[str]) -> float:
    """Ask for accounts at once and return how many explained scores come a second, three an account."""
    body = json.dumps({"accounts": accounts}).encode()
    started = time.perf_counter()
    with urlopen(Request(side.url, body, side.headers, method="POST"), timeout=120) as answer:
        while answer.read(1 << 20):
            pass
    return len(accounts) * len(TARGETS) / (time.perf_counter() - started)


def ours(stack: ExitStack, workspace: Workspace, score_set: ScoreSet, features: dict[str, object], logs: Path) -> list[Side]:
    """Start the service and return its sides."""
    with opened_identity(workspace) as identity:
        headers = {"Authorization": f"Bearer {identity.issue_key(VENDOR, label='speed')}", "Content-Type": "application/json"}
    port = free_port()
    address, account = f"http://127.0.0.1:{port}", score_set.accounts["account_id"][17]
    command = [sys.executable, str(HERE / "speed_service.py"), str(workspace.folder), str(port)]
    server = stack.enter_context(running(command, f"{address}/v1/empty", log=logs / "service.log"))
    row = json.dumps({"rows": [{"id": "mine", "features": features}]}).encode()
    return [
        Side("empty", f"{address}/v1/empty", {}, None, server),
        Side("by id", f"{address}/v1/accounts/{account}", headers, None, server),
        Side("by row", f"{address}/v1/predict", headers, row, server),
    ]


def theirs(stack: ExitStack, workspace: Workspace, columns: Sequence[str], matrix: np.ndarray, logs: Path) -> Side:
    """Start MLflow's server of the same models."""
    model, port = logs / "mlflow_model", free_port()
    subprocess.run([sys.executable, str(HERE / "speed_mlflow.py"), str(workspace.training / "champion"), str(model)], cwd=HERE, check=True)
    command = ["mlflow", "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local", "--workers", "1"]
    command[0] = str(Path(sys.executable).with_name("mlflow"))
    server = stack.enter_context(running(command, f"http://127.0.0.1:{port}/ping", log=logs / "mlflow.log"))
    row = [None if np.isnan(value) else value for value in matrix[0].tolist()]
    body = json.dumps({"dataframe_split": {"columns": list(columns), "data": [row]}}).encode()
    return Side("mlflow", f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}, body, server)


def measure_serving(size: BookSize, *, rounds: int, seconds: int) -> Found:
    """Ask each side for so many seconds in each round.

    Parameters
    ----------
    size
        The book that is served.
    """
    if shutil.which("wrk") is None:
        return Found(comparisons=(absent("an explained answer over HTTP", "an empty answer, MLflow", "CPU", why="wrk is not installed"),))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workspace = make_book(Path(folder) / "book", workers=1, size=size)
        score_workspace(workspace)
        score_set = load_score_set(workspace.scores)
        features = {name: json_value(score_set.values[name][17]) for name in score_set.features}
        package = score_set.packages["churn"]
        matrix = package.encode_rows([features])
        sides = ours(stack, workspace, score_set, features, Path(folder))
        sides.append(theirs(stack, workspace, package.features, matrix, Path(folder)))
        taken = [
            {side.name: cost(side, seconds=seconds) / 1e6 for side in sides} | {"pred_contrib": bare_cost(score_set, matrix) / 1e6}
            for _ in range(rounds)
        ]
        best = max(scores_a_second(sides[2], score_set.accounts["account_id"][:10_000].tolist()) for _ in range(3))
    return Found(comparisons=tuple(compare(taken, best)))


def compare(taken: Sequence[Mapping[str, float]], best: float) -> list[Comparison]:
    """Return the comparisons of the rounds: CPU seconds an answer by the name of each side.

    Parameters
    ----------
    best
        Explained scores a second, where many accounts are asked for at once.
    """
    by_id, by_row = "an explained account over HTTP, three models", "a row explained over HTTP, three models"
    many = f"many accounts in one call: {best:,.0f} explained scores a second (meant: {SCORES_A_SECOND:,})"
    scored = [(found["by row"] - 1.3 * found["empty"], found["pred_contrib"]) for found in taken]
    return [
        compared(by_id, "an empty answer of the same service", "CPU", _pairs(taken, "by id", "empty"), at_most=1.3, note=many),
        compared(by_id, "MLflow's server with SHAP, by row", "CPU", _pairs(taken, "by id", "mlflow"), at_most=1 / 5),
        compared(by_row, "MLflow's server with SHAP", "CPU", _pairs(taken, "by row", "mlflow"), at_most=1 / 2),
        compared(f"{by_row}, without 1.3 empty answers", "pred_contrib of the three models", "CPU", scored, at_most=1.2),
    ]


def _pairs(taken: Sequence[Mapping[str, float]], own: str, other: str) -> list[tuple[float, float]]:
    return [(found[own], found[other]) for found in taken]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="how long each side is asked in a round")
    asked = parser.parse_args()
    print(table(measure_serving(BookSize(), rounds=asked.rounds, seconds=asked.seconds).comparisons))


if __name__ == "__main__":
    main()
