"""Names for the companies and people of a simulated world; they are invented."""

import numpy as np

__all__ = ["company_names", "person_names"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STEMS = _words("""
    Arden Belvo Brisa Calvo Corin Dalter Denmar Elmar Evora Falken Fenwo Galten Harvik Istra Jorun
    Kelmo Lorven Maren Norvi Oster Pelda Quill Rova Selten Tarn Ulven Vasko Welda Yarrow Zelko
""")
_ENDINGS = _words("ion ia ex um ora tec sys lane wick ford mark gate well dale berg")
_TRADES = _words("Labs Systems Works Group Partners Foods Logistics Health Analytics Studio Supply Energy Media Networks Holdings")
_FIRST_NAMES = _words("Ada Ben Cleo Dario Elif Femi Greta Hugo Ines Jonas Kira Liam Mina Nils Olga Priya Quentin Rosa Sam Tove")
_LAST_NAMES = _words("""
    Abbot Berger Castell Dahl Eriksen Faber Grant Holm Ito Jansen Keller Lund Moreau Novak Okafor Petrov Quist Rossi Silva Tanaka
""")


def company_names(random: np.random.Generator, n: int) -> list[str]:
    """Return different names; when the words run out, a number tells namesakes apart."""
    names = [f"{stem}{ending} {trade}" for stem in _STEMS for ending in _ENDINGS for trade in _TRADES]
    order = random.permutation(len(names))
    return [names[order[k % len(names)]] + (f" {k // len(names) + 1}" if k >= len(names) else "") for k in range(n)]


def person_names() -> list[str]:
    """Return the names of the vendor's customer success managers.

    Examples
    --------
    >>> person_names()[:2]
    ['Ada Abbot', 'Ben Berger']
    """
    return [f"{first} {last}" for first, last in zip(_FIRST_NAMES, _LAST_NAMES, strict=True)]
