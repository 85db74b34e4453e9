"""The feed of changes for whoever asks: score set after score set, each change once, from where the caller stopped reading.

A bookmark says how far a caller has read: a score set, and how many of its changes. Following it leads through the score sets that are
kept. Where one is missing in between, changes are lost, and the caller is told to read the book again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from itsdangerous import BadData, URLSafeSerializer

from serving.answers import schema_changes as schema
from serving.answers.account_answers import as_of
from serving.answers.namesakes import share_alike
from serving.permissions.caller import Caller
from serving.scores.feed import CHANGES, AccountChange, ChangeSet, Lead, read_change_set
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View
from serving.scores.standings import Archive

__all__ = ["Bookmark", "Page", "feed_answer", "latest_changes", "open_bookmark", "read_feed", "seal_bookmark"]

_SETS_AT_HAND = 3
"""How many sets of changes stay in memory between two requests."""


@dataclass(frozen=True)
class Bookmark:
    """How far a caller has read.

    Parameters
    ----------
    read
        How many of the score set's changes: the change of models is the first, the lines follow.
    whole
        Whether these were all.
    """

    version: str
    read: int
    whole: bool


_NOTHING_READ = Bookmark("", 0, whole=True)
"""Where a caller is when there are no changes at all: whatever comes, it has missed some."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some changes, and where to go on.

    Parameters
    ----------
    changes
        With the set that each is from; None for a change of models.
    reset
        Whether changes were lost since the bookmark.
    """

    changes: Sequence[tuple[ChangeSet, AccountChange | None]]
    bookmark: Bookmark
    more: bool
    reset: bool


def seal_bookmark(bookmark: Bookmark, *, secret: bytes, caller: Caller) -> str:
    """Return a bookmark as text that only this caller can use, and nobody can change."""
    sealed = _sealer(secret, caller).dumps([bookmark.version, bookmark.read, bookmark.whole])
    return sealed if isinstance(sealed, str) else sealed.decode()


def open_bookmark(text: str, *, secret: bytes, caller: Caller) -> Bookmark | None:
    """Return the bookmark in a text; None if it is none of this caller's."""
    try:
        return Bookmark(*_sealer(secret, caller).loads(text))
    except (BadData, TypeError):
        return None


def read_feed(archive: Archive, score_set: ScoreSet, view: View, *, since: Bookmark | None, limit: int) -> Page:
    """Return the next changes for a caller.

    Parameters
    ----------
    since
        None for all that are kept.
    """
    published = _published(archive, score_set)
    end = Bookmark(published[-1], 1 + len(_change_set(archive, score_set, published[-1])), whole=True) if published else _NOTHING_READ
    if since is None:
        names, read, last = published, 0, None
    elif since.version in published:
        names, read, last = published[published.index(since.version) :], since.read, None
    else:
        names, read, last = [name for name in published if since.version < name], 0, since
    if last is not None and (not last.whole or not names):
        return _reset(end)
    found: list[tuple[ChangeSet, AccountChange | None]] = []
    for name in names:
        change_set = _change_set(archive, score_set, name)
        if last is not None and change_set.against != last.version:  # the one in between is no longer kept
            return Page(changes=found, bookmark=last, more=True, reset=False) if found else _reset(end)
        for position, change in _told(change_set, read, view, score_set):
            if len(found) == limit:
                return Page(changes=found, bookmark=Bookmark(name, position, whole=False), more=True, reset=False)
            found.append((change_set, change))
        read, last = 0, Bookmark(name, 1 + len(change_set), whole=True)
    return Page(changes=found, bookmark=end, more=False, reset=False)


def _reset(end: Bookmark) -> Page:
    """Return the page of a caller that missed changes: it reads the book again and goes on from the end."""
    return Page(changes=(), bookmark=end, more=False, reset=True)


def feed_answer(page: Page, score_set: ScoreSet, view: View, *, cursor: str) -> schema.Feed:
    """Return a page as the caller may read it."""
    values = {
        "changes": [_change(change_set, change, view) for change_set, change in page.changes],
        "cursor": cursor,
        "more": page.more,
        "reset": page.reset,
        "as_of": as_of(score_set, view),
    }
    return schema.Feed(**share_alike(view, "Feed", values))


def latest_changes(archive: Archive, score_set: ScoreSet, view: View) -> dict[str, AccountChange]:
    """Return what changed with the present score set, by account."""
    if score_set.manifest.version not in _published(archive, score_set):
        return {}
    latest = _change_set(archive, score_set, score_set.manifest.version)
    return {change.account_id: change for _, change in latest.changes_for(view, score_set)}


def _sealer(secret: bytes, caller: Caller) -> URLSafeSerializer:
    return URLSafeSerializer(secret, salt=f"renewcast.feed {caller.name}", signer_kwargs={"digest_method": hashlib.sha256})


def _published(archive: Archive, score_set: ScoreSet) -> list[str]:
    """Return the score sets that are kept and were served, oldest first, up to the present one."""
    versions = [version for version in archive.versions() if (archive.folder(version) / CHANGES).exists()]
    return versions[: versions.index(score_set.manifest.version) + 1] if score_set.manifest.version in versions else []


def _change_set(archive: Archive, score_set: ScoreSet, version: str) -> ChangeSet:
    """Return a set of changes; the newest that were read stay at hand as long as the score set is served."""
    at_hand: dict[str, ChangeSet] = score_set.memory.setdefault("change sets", {})
    found = at_hand.get(version)
    if found is None:
        manifest = archive.manifest(version)
        found = at_hand[version] = archive.read(version, lambda folder: read_change_set(folder, manifest))
    for oldest in sorted(at_hand)[:-_SETS_AT_HAND]:
        at_hand.pop(oldest, None)
    return found


def _told(change_set: ChangeSet, start: int, view: View, score_set: ScoreSet) -> Iterator[tuple[int, AccountChange | None]]:
    """Yield what a caller is told of a set from a position on, each with its position."""
    if start == 0 and change_set.models:
        yield 0, None
    for line, change in change_set.changes_for(view, score_set, start=max(start - 1, 0)):
        yield 1 + line, change


def _change(change_set: ChangeSet, change: AccountChange | None, view: View) -> schema.FeedChange:
    values = {"score_set": change_set.version, "cutoff": change_set.cutoff}
    if change is None:
        nothing = dict.fromkeys(
            ("account_id", "name", "health_before", "health", "band_before", "band", "first_driver_before", "first_driver")
        )
        values |= nothing | {"kinds": ["model"], "targets": list(change_set.models)}
    else:
        values |= {
            "kinds": list(change.kinds),
            "account_id": change.account_id,
            "name": change.name,
            "health_before": change.health_before,
            "health": change.health,
            "band_before": change.band_before,
            "band": change.band,
            "first_driver_before": _lead(change.lead_before, view),
            "first_driver": _lead(change.lead, view),
            "targets": None,
        }
    return schema.FeedChange(**share_alike(view, "FeedChange", values))


def _lead(lead: Lead | None, view: View) -> schema.FeedDriver | None:
    if lead is None:
        return None
    values = {"features": list(lead.features), "sentence": lead.sentence, "effect": lead.effect}
    return schema.FeedDriver(**share_alike(view, "FeedDriver", values))
