"""Where a caller stopped reading, sealed: it cannot be read, changed, or used by somebody else or for another question.

A cursor names the score set that it belongs to. One that is followed after new scores have come would skip accounts and tell others twice,
so it is refused with 410 and the caller starts again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from serving.answers.problems import ProblemError
from serving.answers.schema import FieldProblem
from serving.permissions.caller import Caller
from serving.scores.scoring import ScoreSet

__all__ = ["Cursors"]

_POINTER = "/query/cursor"


@dataclass(frozen=True)
class Cursors:
    """Seals and opens cursors over a book.

    Parameters
    ----------
    secret
        What the seal hangs on.
    """

    secret: bytes

    def after(self, account_id: str, *, score_set: ScoreSet, caller: Caller, question: Mapping[str, Any]) -> str:
        """Return the cursor of what comes after an account, in the answer to a question."""
        content = [score_set.manifest.version, account_id]
        sealed = self._serializer(caller, question).dumps(content)
        return sealed if isinstance(sealed, str) else sealed.decode()

    def open(self, cursor: str, *, score_set: ScoreSet, caller: Caller, question: Mapping[str, Any]) -> int:
        """Return the row after which to go on.

        Raises
        ------
        ProblemError
            422 if it was not given to this caller for this question; 410 if it belongs to other scores.
        """
        try:
            version, account_id = self._serializer(caller, question).loads(cursor)
        except BadData as error:
            message = "this cursor was not given for these filters and this order; leave them as they were, or start without a cursor"
            raise ProblemError(422, "The cursor does not fit.", errors=[FieldProblem(pointer=_POINTER, message=message)]) from error
        if version != score_set.manifest.version:
            raise ProblemError(410, "New scores have come since this cursor was given: start again without a cursor.")
        return score_set.index[account_id]

    def _serializer(self, caller: Caller, question: Mapping[str, Any]) -> URLSafeSerializer:
        salt = f"renewcast.cursor {caller.name} {sorted((name, str(value)) for name, value in question.items())}"
        return URLSafeSerializer(self.secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})
