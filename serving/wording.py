"""Numbers in words that people who look after customers use: odds, amounts with units, dates, and how a value moved."""

import math
from datetime import datetime

__all__ = ["about", "amount", "chance", "day", "factor", "money", "moved", "number", "sentence_case", "short_day", "signed"]

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_SHARES = frozenset({"share", "ratio"})
_UNITLESS = frozenset({"share", "ratio", "level", "amount", "points", ""})
_ONE_OF = {"people": "person"}


def chance(probability: float) -> str:
    """Say a probability as a natural frequency.

    Examples
    --------
    >>> [chance(p) for p in (0.0001, 0.033, 0.125, 0.3, 0.52, 0.97)]
    ['less than 1 in 200', '1 in 30', '1 in 8', '3 in 10', '5 in 10', 'more than 9 in 10']
    """
    if probability < 0.005:
        return "less than 1 in 200"
    if probability >= 0.95:
        return "more than 9 in 10"
    if probability > 0.28:
        return f"{math.floor(10 * probability + 0.5)} in 10"
    one_in = 1 / probability
    return f"1 in {round(one_in) if one_in < 20 else 5 * round(one_in / 5)}"


def about(probability: float) -> str:
    """Say a probability as a natural frequency that was rounded.

    Examples
    --------
    >>> about(0.125), about(0.001)
    ('about 1 in 8', 'less than 1 in 200')
    """
    said = chance(probability)
    return said if said.startswith(("less", "more")) else f"about {said}"


def number(value: float, unit: str = "") -> str:
    r"""Write a number with as many digits as a reader needs.

    Examples
    --------
    >>> number(41.0), number(0.234, "share"), number(1234.5), number(3.14159), number(0.0123), number(-2.5)
    ('41', '23\xa0%', '1,234', '3.1', '0.012', '−2.5')
    """
    sign, size = ("−" if value < 0 else ""), abs(value) * (100 if unit in _SHARES else 1)
    if size == round(size) or size >= 100:
        text = f"{size:,.0f}"
    elif size >= 1 and unit not in _SHARES:
        text = f"{size:.1f}".removesuffix(".0")
    elif size >= 1:
        text = f"{size:.0f}"
    else:
        text = f"{size:.2g}"
    return ("" if float(text.replace(",", "")) == 0 else sign) + text + ("\u00a0%" if unit in _SHARES else "")


def amount(value: float | str | None, unit: str) -> str:
    """Write a value with its unit; a ratio is written as a share, and a flag as yes or no.

    Examples
    --------
    >>> amount(23.0, "users"), amount(1.0, "events per user"), amount(1200.0, "USD per seat"), amount(1.0, "flag")
    ('23 users', '1 event per user', '$1,200 per seat', 'yes')
    >>> amount("gold", "level"), amount(None, "users")
    ('gold', 'not known')
    """
    if value is None:
        return "not known"
    if isinstance(value, str) or unit == "flag" or unit in _UNITLESS:
        return _bare(value, unit)
    noun, per, whole = unit.partition(" ")
    if _is_currency(noun):
        return f"{_bare(value, unit)}{per}{whole}"
    one = _ONE_OF.get(noun, noun.removesuffix("s"))
    return f"{number(value)} {one if abs(value) == 1 else noun}{per}{whole}"


def money(value: float, currency: str) -> str:
    """Write an amount of money in whole units of the currency.

    Examples
    --------
    >>> money(1234.5, "USD"), money(-3.0, "EUR"), money(0.4, "CHF")
    ('$1,234', '−€3', 'CHF 0')
    """
    size = f"{abs(value):,.0f}"
    sign = "−" if value < 0 and size != "0" else ""
    return sign + (_SYMBOLS[currency] + size if currency in _SYMBOLS else f"{currency} {size}")


def moved(value: float | str | None, earlier: float | str | None, unit: str) -> str:
    """Say how a value moved, as the verb of a sentence; what is counted, the sentence says itself, except for days.

    Examples
    --------
    >>> moved(23.0, 41.0, "users"), moved(23.0, 23.0, "users"), moved(2.5, None, "days"), moved("gold", "silver", "level")
    ('fell from 41 to 23', 'stayed at 23', 'stood at 2.5 days', 'went from silver to gold')
    """
    if value is None:
        return "is not known"
    now = amount(value, unit) if unit == "days" else _bare(value, unit)
    if earlier is None:
        return f"stood at {now}"
    before = _bare(earlier, unit)
    if _bare(value, unit) == before:
        return f"stayed at {now}"
    if isinstance(value, str) or isinstance(earlier, str) or unit == "flag":
        return f"went from {before} to {now}"
    return f"{'rose' if value > earlier else 'fell'} from {before} to {now}"


def factor(odds_factor: float) -> str:
    """Write a factor on the odds.

    Examples
    --------
    >>> factor(1.84), factor(0.5), factor(12.3), factor(1.004)
    ('× 1.8', '× 0.50', '× 12', '× 1.0')
    """
    if odds_factor >= 10:
        return f"× {odds_factor:.0f}"
    return f"× {odds_factor:.1f}" if odds_factor >= 0.995 else f"× {odds_factor:.2f}"


def day(instant: datetime) -> str:
    """Write a date.

    Examples
    --------
    >>> day(datetime(2025, 7, 1, 12))
    '1 Jul 2025'
    """
    return f"{instant.day} {instant:%b %Y}"


def short_day(instant: datetime) -> str:
    """Write a date whose year goes without saying.

    Examples
    --------
    >>> short_day(datetime(2025, 7, 1, 12))
    '1 Jul'
    """
    return f"{instant.day} {instant:%b}"


def signed(change: float) -> str:
    """Write a change in whole points, with its sign.

    Examples
    --------
    >>> signed(3), signed(-6.2), signed(0.2)
    ('+3', '−6', '±0')
    """
    points = round(change)
    return "±0" if points == 0 else f"{'+' if points > 0 else '−'}{abs(points)}"


def sentence_case(text: str) -> str:
    """Start a text with a capital, leaving the rest as it is.

    Examples
    --------
    >>> sentence_case("active users fell from 41 to 23")
    'Active users fell from 41 to 23'
    """
    return text[:1].upper() + text[1:]


def _bare(value: float | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    if unit == "flag":
        return "yes" if value else "no"
    noun = unit.partition(" ")[0]
    return money(value, noun) if _is_currency(noun) else number(value, unit)


def _is_currency(noun: str) -> bool:
    return len(noun) == 3 and noun.isupper()
