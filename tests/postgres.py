"""A PostgreSQL server of the tests' own, on loopback and without passwords, that can be stopped and started again."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.ports import free_port

__all__ = ["SERVING_ROLE", "SUPERUSER", "Postgres", "postgres_programs"]

SUPERUSER = "reader"
SERVING_ROLE = "renewcast"


def postgres_programs() -> Path | None:
    """Return the folder of the server's programs; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Postgres:
    """A server whose data are in a folder; it is made stopped."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.host = f"127.0.0.1:{free_port()}"
        self._programs, self._folder = programs, folder
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            # the server refuses to run as root
            self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            for parent in (folder, *folder.parents[:3]):
                parent.chmod(0o755)
            shutil.chown(folder, "nobody", "nogroup")
        self._run("initdb", "-D", folder / "data", "-U", SUPERUSER, "-A", "trust", "--no-sync")

    def address(self, database: str, *, user: str = SUPERUSER) -> str:
        """Return the address of a database."""
        return f"postgresql://{user}@{self.host}/{database}"

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        options = f"-h 127.0.0.1 -p {self.host.rpartition(':')[2]} -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "-D", self._folder / "data", "-l", self._folder / "log", "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop it, if it runs, without a word to its clients, as a machine that fails."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "stop")

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, **self._user)
