"""What goes over the wire of what people say about an account: plays, whether they agree with a score, and notes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from features.feature import Target
from serving.answers.feedback import Category, Reason
from serving.answers.schema import WITHOUT_CONTROLS, Identifier, Instant, NextCursor, Probability, Strict

__all__ = [
    "FeedbackEntry",
    "FeedbackList",
    "FeedbackRequest",
    "NoteEntry",
    "NoteList",
    "NoteRequest",
    "PlayEntry",
    "PlayList",
    "PlayRequest",
    "SaidEntry",
    "Words",
]

LONGEST_WORDS = 4_000


def _plain_utc(time: datetime) -> datetime:
    """Return a time as the store keeps it: naive, in UTC."""
    if not 1970 <= time.year < 9000:
        raise ValueError("must lie between 1970 and 9000")
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


Line = Annotated[str, Field(min_length=1, max_length=200, pattern=WITHOUT_CONTROLS)]
Words = Annotated[str, Field(min_length=1, max_length=LONGEST_WORDS, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]
Time = Annotated[datetime, AfterValidator(_plain_utc)]
Cost = Annotated[float, Field(ge=0, le=1e15)]

_BY = "Who said it, as the credential names the person or application; null where it is the other side's."


def _example(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


_PLAY = {
    "play": "Training for new users",
    "performed_at": "2025-06-30T09:00:00Z",
    "category": "Adoption",
    "cost": 350.0,
    "note": "Six people came; two more want a second date.",
}
_FEEDBACK = {
    "target": "churn",
    "agrees": False,
    "reason": "renewal_agreed",
    "words": "They told us on Monday that they will sign for two years.",
    "score_set": "20250701T060000000000-1a2b3c4d",
}
_NOTE = {"text": "The new head of operations knows the product from her last company.", "occurred_at": "2025-06-30T09:00:00Z"}
_SAID = {
    "account_id": "acc-0001",
    "partner_id": "p1",
    "subject": "jo@partner.example",
    "role": "csm",
    "recorded_at": "2025-07-01T12:00:00Z",
}
_ID = "9f1c2d3e4b5a69788796a5b4c3d2e1f0"


class PlayRequest(Strict):
    """What was done for a customer."""

    model_config = _example(_PLAY)

    play: Line = Field(description="What was done, in a few words; the same words for the same thing.")
    performed_at: Time = Field(description="When it was done; not in the future.")
    category: Category
    cost: Cost | None = Field(default=None, description="What it cost, in the workspace's currency.")
    note: Words | None = Field(default=None, description="Anything worth remembering.")


class FeedbackRequest(Strict):
    """Whether somebody agrees with a score, and why."""

    model_config = _example(_FEEDBACK)

    target: Target
    agrees: bool
    reason: Reason | None = Field(default=None, description="Why; needed to disagree.")
    words: Words | None = Field(default=None, description="Why, in words; needed where the reason is `other`.")
    score_set: Identifier = Field(description="The score set that was looked at: `as_of.score_set` of the account.")

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if not self.agrees and self.reason is None:
            raise ValueError("say why you disagree: give a reason")
        if self.reason == "other" and self.words is None:
            raise ValueError("say in words what the other reason is")
        return self


class NoteRequest(Strict):
    """Words about an account."""

    model_config = _example(_NOTE)

    text: Words
    occurred_at: Time | None = Field(default=None, description="When it happened; now if not given, and not in the future.")


class SaidEntry(Strict):
    """Something that was said about an account, with who said it and when."""

    account_id: str
    partner_id: str | None = Field(description="On whose side; null for the vendor's.")
    subject: str | None = Field(description=_BY)
    role: str | None
    recorded_at: Instant


class PlayEntry(SaidEntry):
    """A play that was recorded."""

    model_config = _example({"play_id": _ID} | _SAID | _PLAY)

    play_id: str
    play: str
    performed_at: Instant
    category: Category
    cost: float | None = Field(description="In the workspace's currency; null where it is the other side's.")
    note: str | None


class PlayList(Strict):
    """What was done for an account, as far as you may know, the newest first."""

    model_config = _example({"plays": [{"play_id": _ID} | _SAID | _PLAY], "next_cursor": None})

    plays: list[PlayEntry]
    next_cursor: NextCursor


class FeedbackEntry(SaidEntry):
    """Feedback that was given, with what the score said."""

    model_config = _example({"feedback_id": _ID} | _SAID | _FEEDBACK | {"probability": 0.31})

    feedback_id: str
    target: Target
    agrees: bool
    reason: Reason | None
    words: str | None
    score_set: str
    probability: Probability = Field(description="What the score said.")


class FeedbackList(Strict):
    """What was said about an account's scores, the newest first."""

    model_config = _example({"feedback": [{"feedback_id": _ID} | _SAID | _FEEDBACK | {"probability": 0.31}], "next_cursor": None})

    feedback: list[FeedbackEntry]
    next_cursor: NextCursor


class NoteEntry(SaidEntry):
    """A note; `contribution_id` is that of the contribution that it came with, if any."""

    model_config = _example({"note_id": _ID} | _SAID | _NOTE | {"contribution_id": None})

    note_id: str
    occurred_at: Instant
    text: str
    contribution_id: str | None


class NoteList(Strict):
    """Notes about an account that you may read, the newest first."""

    model_config = _example({"notes": [{"note_id": _ID} | _SAID | _NOTE | {"contribution_id": None}], "next_cursor": None})

    notes: list[NoteEntry]
    next_cursor: NextCursor
