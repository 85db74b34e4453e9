"""The playbook: what people can do for an account, as options tied to the reasons of its scores.

A play is suggested because a reason that somebody can see names a feature that the play is for. It is never said to work: that takes a
randomised trial, and until there is one a suggestion is a reminder of what others do in such a case.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from features.errors import ConfigError, explain
from features.feature import Target
from features.section import Section
from features.workspace import Workspace
from serving.answers.schema import Driver, Score
from serving.scores.reasons import Effect

__all__ = ["CATEGORIES", "PLAYS_NAME", "Category", "Play", "Playbook", "Suggestion", "load_playbook"]

PLAYS_NAME = "plays.toml"
"""The workspace's own plays, beside its `renewcast.toml`."""

Category = Literal["Implementation", "Adoption", "Growth", "Experience"]
CATEGORIES: tuple[Category, ...] = get_args(Category)

_MOST_SUGGESTED = 5
_DEFAULT = Path(__file__).with_name(PLAYS_NAME)
_EFFECTS = get_args(Effect)


@dataclass(frozen=True, kw_only=True)
class Play:
    """Something that people can do for an account.

    Parameters
    ----------
    features
        Patterns of the features that a reason may stand on.
    target, effect
        Of which score the reason must be, and what it must do to it.
    who
        Who alone can do it; None for both.
    """

    name: str
    category: Category
    title: str
    text: str
    features: tuple[str, ...]
    target: Target
    effect: Effect
    who: Literal["vendor", "partner"] | None

    def fits(self, driver: Driver) -> bool:
        """Tell whether a reason is one that the play is for."""
        return driver.effect == self.effect and any(fnmatchcase(driver.features[0], pattern) for pattern in self.features)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A play, and the sentence of the reason for which it is suggested."""

    play: Play
    because: str


@dataclass(frozen=True)
class Playbook:
    """All plays by name, in the order of the file."""

    plays: Mapping[str, Play]

    def suggest(self, scores: Sequence[Score], *, side: Literal["vendor", "partner"]) -> tuple[Suggestion, ...]:
        """Return what can be done about the reasons of an account's scores, the strongest reasons first, each play once."""
        found: dict[str, Suggestion] = {}
        for score in scores:
            for driver in score.drivers:
                for play in self.plays.values():
                    wanted = play.target == score.target and play.who in (None, side) and play.name not in found
                    if wanted and play.fits(driver):
                        found[play.name] = Suggestion(play=play, because=driver.sentence)
        return tuple(found.values())[:_MOST_SUGGESTED]


def load_playbook(workspace: Workspace) -> Playbook:
    """Return the default plays with the workspace's own laid over them.

    Raises
    ------
    ConfigError
        If a file is not what it should be, with the file, the play and the key.
    """
    plays = _read(_DEFAULT).plays
    own = workspace.folder / PLAYS_NAME
    if not own.exists():
        return Playbook(plays)
    theirs = _read(own)
    return Playbook({name: play for name, play in {**plays, **theirs.plays}.items() if name not in theirs.off})


@dataclass(frozen=True)
class _File:
    plays: Mapping[str, Play]
    off: frozenset[str]


def _read(path: Path) -> _File:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(explain(f"{path} is not TOML: {error}", todo="Correct the line that it names.")) from error
    file = Section(path, "", values)
    below = file.section("plays")
    plays = {name: _play(name, below.section(name)) for name in below.values}
    off = frozenset(file.texts("off", ()))
    file.refuse_others()
    return _File(plays, off)


def _play(name: str, section: Section) -> Play:
    play = Play(
        name=name,
        category=section.choice("category", CATEGORIES),
        title=section.text("title"),
        text=section.text("text"),
        features=section.texts("features"),
        target=section.choice("target", get_args(Target), "churn"),
        effect=section.choice("effect", _EFFECTS, "raises"),
        who=section.choice("who", ("vendor", "partner"), None),
    )
    section.refuse_others()
    return play
