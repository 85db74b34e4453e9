"""Where a caller stopped reading a list, sealed: it cannot be changed, nor used by somebody else or for another question."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from itsdangerous import BadData, URLSafeSerializer

from serving.answers.newest_first import Place
from serving.answers.portfolio import DEFAULT_PAGE_SIZE, LARGEST_PAGE
from serving.answers.problems import ProblemError
from serving.answers.schema import FieldProblem
from serving.permissions.caller import Caller

__all__ = ["Cursors", "Paged", "Paging"]

_POINTER = "/query/cursor"


@dataclass(frozen=True)
class Paging:
    """Which page of a list is asked for: how much of it, after which cursor."""

    cursor: str | None = None
    limit: int = DEFAULT_PAGE_SIZE


async def _paging(
    cursor: Annotated[str | None, Query(max_length=2000, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="How many at most.")] = DEFAULT_PAGE_SIZE,
) -> Paging:
    return Paging(cursor, limit)


Paged = Annotated[Paging, Depends(_paging)]


@dataclass(frozen=True)
class Cursors:
    """Seals and opens the cursors of one caller's question.

    Parameters
    ----------
    secret
        What the seal hangs on.
    question
        What was asked: which list, with which filters, in which order.
    """

    secret: bytes
    caller: Caller
    question: Mapping[str, Any]

    def seal(self, *place: str) -> str:
        """Return the cursor of what comes after a place."""
        sealed = self._serializer().dumps(place)
        return sealed if isinstance(sealed, str) else sealed.decode()

    def open(self, cursor: str) -> Sequence[str]:
        """Return the place after which to go on.

        Raises
        ------
        ProblemError
            422 if it was not given to this caller for this question.
        """
        try:
            place: Sequence[str] = self._serializer().loads(cursor)
        except BadData as error:
            message = (
                "this cursor was not given for this list, these filters and this order; leave them as they were, or start without a cursor"
            )
            raise ProblemError(422, "The cursor does not fit.", errors=[FieldProblem(pointer=_POINTER, message=message)]) from error
        return place

    def seal_place(self, place: Place | None) -> str | None:
        """Return the cursor of what comes after a place of a list that has the newest first; None at its end."""
        return None if place is None else self.seal(place.time.isoformat(), place.key)

    def open_place(self, cursor: str | None) -> Place | None:
        """Return the place after which to go on in such a list; None at its beginning. Raises as `open` does."""
        if cursor is None:
            return None
        time, key = self.open(cursor)
        return Place(datetime.fromisoformat(time), key)

    def _serializer(self) -> URLSafeSerializer:
        salt = f"renewcast.cursor {self.caller.name} {sorted((name, str(value)) for name, value in self.question.items())}"
        return URLSafeSerializer(self.secret, salt=salt, signer_kwargs={"digest_method": hashlib.sha256})
