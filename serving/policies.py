"""The policy that holds now: read once, and taken up again when somebody has edited its file, without a restart."""

import logging
from threading import Lock

from features.errors import ConfigError
from features.workspace import Workspace
from serving.policy import POLICY_NAME, Policy, load_policy

__all__ = ["LivePolicy"]

_LOG = logging.getLogger("renewcast.serving")


class LivePolicy:
    """Holds the current policy and follows the workspace's `policy.toml`.

    A request asks once and keeps the answer. A file that cannot be read is logged, and the last good policy stays; `fault` says why.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._mark = self._look()
        self._policy = load_policy(workspace)
        self._reading = Lock()
        self.fault: str | None = None

    def current(self) -> Policy:
        """Return the policy to answer a request with."""
        mark = self._look()
        if mark != self._mark and self._reading.acquire(blocking=False):
            try:
                self._policy, self.fault = load_policy(self._workspace), None
                _LOG.info("the policy has changed: %s", self._policy.fingerprint[:12])
            except ConfigError as error:
                self.fault = str(error)
                _LOG.error("the policy was edited and cannot be used; the one before stays: %s", error)
            finally:
                self._mark = mark
                self._reading.release()
        return self._policy

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes whenever the file does."""
        try:
            found = (self._workspace.folder / POLICY_NAME).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
