"""The policy that holds now: read once, and taken up again when somebody has edited its file, without a restart.

The text of the last policy that could be used is kept in the workspace's state. It stays when the file is edited and broken, and a worker
that starts while the file is broken starts with it too.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from features.errors import ConfigError, WorkspaceError
from features.ledger import replace_file
from features.workspace import Workspace
from serving.permissions.policy import POLICY_NAME, Policy, parse_policy, read_policy

__all__ = ["SETTLED_SECONDS", "LivePolicy"]

_LOG = logging.getLogger("renewcast.serving")

SETTLED_SECONDS = 1.0
"""A file that changed less than this ago may still be being written: half a policy is a policy, and a laxer one."""

_Mark = tuple[int, int, int] | None


class LivePolicy:
    """Holds the current policy and follows the workspace's `policy.toml`.

    A request asks once and keeps the answer. A file that cannot be used is logged, and the last good policy stays; `fault` says why.

    Parameters
    ----------
    clock
        Seconds that only ever grow.

    Raises
    ------
    ConfigError
        If the workspace's policy cannot be used, and none could before.
    """

    def __init__(self, workspace: Workspace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._workspace = workspace
        self._clock = clock
        self._reading = Lock()
        self._fault: str | None = None
        self._mark = self._look()
        self._noticed: tuple[_Mark, float] = self._mark, clock()
        try:
            self._policy = self._read()
        except ConfigError as error:
            self._policy = self._last_good(error)

    @property
    def fault(self) -> str | None:
        """Why the file that is there is not what holds; None if it is."""
        self.current()
        return self._fault

    def current(self) -> Policy:
        """Return the policy to answer a request with."""
        mark = self._look()
        if mark != self._mark and self._settled(mark) and self._reading.acquire(blocking=False):
            try:
                self._policy, self._fault = self._read(), None
                _LOG.info("the policy has changed; it is now %s", self._policy.fingerprint[:12])
            except ConfigError as error:
                self._fault = str(error)
                _LOG.error("the policy was edited and cannot be used; the one before stays: %s", error)
            finally:
                self._mark = mark
                self._reading.release()
        return self._policy

    def _settled(self, mark: _Mark) -> bool:
        noticed, since = self._noticed
        if noticed != mark:
            self._noticed = mark, self._clock()
            return False
        return self._clock() - since >= SETTLED_SECONDS

    def _read(self) -> Policy:
        """Read the workspace's policy and keep its text, if it has one of its own."""
        text, policy = read_policy(self._workspace)
        self._keep(text)
        return policy

    def _keep(self, text: str | None) -> None:
        try:
            if text is None:
                self._kept.unlink(missing_ok=True)
            elif not (self._kept.exists() and self._kept.read_text(encoding="utf-8") == text):
                with replace_file(self._kept) as temporary:
                    temporary.write_text(text, encoding="utf-8")
        except (OSError, WorkspaceError) as error:
            _LOG.warning("the policy holds, but cannot be kept for the next start: %s", error)

    def _last_good(self, error: ConfigError) -> Policy:
        if not self._kept.exists():
            raise error
        self._fault = str(error)
        _LOG.error("the policy cannot be used; starting with the last one that could: %s", error)
        return parse_policy(self._kept.read_text(encoding="utf-8"), self._kept)

    @property
    def _kept(self) -> Path:
        return self._workspace.state / POLICY_NAME

    def _look(self) -> _Mark:
        """Return what changes whenever the file does."""
        try:
            found = (self._workspace.folder / POLICY_NAME).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
