"""A workspace: a folder with a `renewcast.toml`, and the state that Renewcast keeps below it in `.renewcast/`."""

import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from filelock import FileLock, Timeout

from features.config import (
    ATTRIBUTE,
    ChangeTarget,
    ColumnMap,
    Config,
    Cutoffs,
    Features,
    Serving,
    TableConfig,
    TableSource,
    Targets,
    Tracking,
    Training,
)
from features.declarations import read_config
from features.errors import ConfigError, WorkspaceError, explain
from features.section import VARIABLE, Section

__all__ = [
    "ATTRIBUTE",
    "CONFIG_NAME",
    "ChangeTarget",
    "ColumnMap",
    "Config",
    "Cutoffs",
    "Features",
    "Serving",
    "TableConfig",
    "TableSource",
    "Targets",
    "Tracking",
    "Training",
    "Workspace",
    "load_workspace",
]

CONFIG_NAME = "renewcast.toml"

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Workspace:
    """A folder, what its config says, and where its state is kept."""

    folder: Path
    config: Config

    @property
    def state(self) -> Path:
        """The folder of everything that Renewcast writes."""
        return self.folder / ".renewcast"

    @property
    def tables(self) -> Path:
        """The folder of the checked tables."""
        return self.state / "tables"

    @property
    def numbered(self) -> Path:
        """The folder of the checked telemetry with numbers for texts, from which features are made."""
        return self.state / "numbered"

    @property
    def book_tables(self) -> Path:
        """The folder of the tables in which scoring and pages look things up: the checked ones, or what comes here of a lake's."""
        return self.state / "book" if self.config.engine == "spark" else self.tables

    @property
    def quarantine(self) -> Path:
        """The folder of the broken rows."""
        return self.state / "quarantine"

    @property
    def contributions(self) -> Path:
        """The folder of what partners contributed."""
        return self.state / "contributions"

    @property
    def check_report(self) -> Path:
        """The report of the last check."""
        return self.state / "check.json"

    @property
    def snapshots(self) -> Path:
        """The folder of the features and labels."""
        return self.state / "snapshots"

    @property
    def training(self) -> Path:
        """The folder of the trainings."""
        return self.state / "training"

    @property
    def scores(self) -> Path:
        """The folder of the score sets."""
        return self.state / "scores"

    @property
    def mlflow_db(self) -> Path:
        """The workspace's own MLflow store."""
        return self.state / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The folder of that store's artifacts."""
        return self.state / "mlartifacts"

    @property
    def database(self) -> Path | str:
        """The operational store: the address of a PostgreSQL database if the config names one, else a SQLite file."""
        return self.config.serving.database or self.state / "renewcast.db"

    @property
    def ledger(self) -> Path:
        """The steps that are done."""
        return self.state / "steps.json"

    @contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Keep other writers away while the block runs; a crash gives the lock back.

        Parameters
        ----------
        purpose
            What another process is told, such as `renewcast train`.

        Raises
        ------
        WorkspaceError
            If another process holds the lock, or the folder cannot be written to.
        """
        holder = self.state / "lock.json"
        try:
            self.state.mkdir(exist_ok=True)
            lock = FileLock(self.state / "lock", timeout=0)
            lock.acquire()
        except Timeout as error:
            todo = "Wait until it has finished, or end it."
            raise WorkspaceError(explain("another process is writing to this workspace", given=_who_holds(holder), todo=todo)) from error
        except OSError as error:
            todo = "Give yourself the right to write to this folder, or copy the workspace to one where you may."
            raise WorkspaceError(explain(f"the workspace cannot be written to: {error.strerror}", given=self.folder, todo=todo)) from error
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            facts = {"purpose": purpose, "process": os.getpid(), "host": socket.gethostname(), "since": since}
            holder.write_text(json.dumps(facts), encoding="utf-8")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()


def _who_holds(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return "it has just begun and has not said what it is"
    return f"{facts['purpose']}, process {facts['process']} on {facts['host']}, since {facts['since']}"


def load_workspace(folder: Path | str, environ: Mapping[str, str] = _NOTHING) -> Workspace:
    """Read a workspace's config.

    Parameters
    ----------
    folder
        The folder that holds `renewcast.toml`.
    environ
        The environment, such as `os.environ`, for `${NAME}` and `${NAME:-default}` in paths and for the addresses of databases.

    Raises
    ------
    WorkspaceError
        If there is no such file.
    ConfigError
        If it cannot be understood; the message names the key and what is allowed.
    """
    folder = Path(folder)
    file = folder / CONFIG_NAME
    try:
        values = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        todo = "Write one with `renewcast init FOLDER`, name another folder with --workspace, or run `renewcast up` for a simulated book."
        raise WorkspaceError(explain(f"this folder is no workspace: it has no {CONFIG_NAME}", given=folder, todo=todo)) from error
    except OSError as error:
        raise WorkspaceError(explain(f"{file} cannot be read: {error.strerror}", todo="Look at the rights of the file.")) from error
    except UnicodeDecodeError as error:
        raise ConfigError(explain(f"{file} is not text in UTF-8", todo="Save it again in UTF-8.")) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(explain(f"{file} is not TOML", given=str(error), todo="Correct the line that is named.")) from error
    section = Section(file, "", values)
    base = _data_folder(section.section("workspace"), folder, environ)
    return Workspace(folder, read_config(section, locate=lambda part, key: _located(part, key, base, environ), environ=environ))


def _data_folder(section: Section, folder: Path, environ: Mapping[str, str]) -> Path:
    return _located(section, "data", folder, environ) if "data" in section else folder.absolute()


def _located(section: Section, key: str, base: Path, environ: Mapping[str, str]) -> Path:
    """Make an absolute path: relative to `base`, or to the working directory where it starts with a variable that is set."""
    text = section.text(key)
    starts_with = VARIABLE.match(text)
    path = Path(VARIABLE.sub(lambda match: _variable(section, key, match, environ), text)).expanduser()
    return path.absolute() if starts_with and environ.get(starts_with["name"]) else Path(os.path.normpath(base.absolute() / path))


def _variable(section: Section, key: str, match: re.Match[str], environ: Mapping[str, str]) -> str:
    value = environ.get(match["name"]) or match["default"]
    if value is None:
        todo = f"Set {match['name']}, or give a default: ${{{match['name']}:-...}}."
        raise section.wrong(key, f"uses the variable {match['name']}, which is not set", given=match.string, todo=todo)
    return value
