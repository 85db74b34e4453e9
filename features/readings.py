"""How text is read as times, numbers and flags: which ways of writing are understood, and how the values of a column decide.

Times are read as ISO 8601 with or without a zone, as seconds, milliseconds, microseconds or nanoseconds since 1970, as `20240131`,
and as day and month with slashes, dots or dashes. Only for the last the column must decide: some value must show which number is the
day. Numbers may have thousands separators and a currency sign. A decimal comma is understood where a value of the column can only be
read so, and none can only be read with a point.

But: words for months are not understood; give the column a `time_format`.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Literal

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

__all__ = [
    "EPOCH_UNITS",
    "Evidence",
    "NumberStyle",
    "SlashStyle",
    "Wanted",
    "count",
    "filled",
    "finite",
    "gather",
    "is_empty",
    "read_flag",
    "read_number",
    "read_time",
    "read_typed_time",
    "stated",
]

Wanted = Literal["time", "number", "flag", "anything"]
SlashStyle = Literal["day first", "month first"]
NumberStyle = Literal["point", "comma"]

_UTC = dt.Timestamp(timezone="UTC")
# patterns rather than lists of words: the engine makes a join of a list, for all rows
_MARKERS = r"(?i)^(null|none|nan|nat|na|n/a|#n/a|-)$"
"""What programs write for a number or time that is missing."""
_ORDINARY = r"^\d(.*\S)?$"
"""A value that starts with a digit and needs no trimming, as nearly all numbers and times do."""
_AFTER_BLANKS = "!"
"""The first character that comes after all blanks in the order of characters."""
_YES, _NO = r"(?i)^(true|t|yes|y|1)$", r"(?i)^(false|f|no|n|0)$"

_ISO = r"^(19|[2-9]\d)\d\d[-/]\d{1,2}[-/]\d{1,2}($|[T ]\d)"
_ZONE = r":\d\d.*(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$"
_SLASHES = r"^\d{1,2}[/.-]\d{1,2}[/.-]((19|[2-9]\d)\d\d|\d{2})($|[T ,]+\d)"
_COMPACT = r"^(19|20|21)\d{6}$"
_EPOCH = r"^\d{9,19}(\.\d*)?$"
_PLAIN = r"^[+-]?\d{1,18}(\.\d{1,18})?$"
_PLAIN_WHOLE = r"^[+-]?\d{1,18}$"
_DOTTED = r"^[+-]?\d{1,3}(\.\d{3})+$"
_POINT = r"^[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?([eE][+-]?\d+)?$"
_COMMA = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)?(,\d*)?$"
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")

EPOCH_UNITS = ((11, 1_000_000.0), (14, 1_000.0), (17, 1.0), (19, 0.001))
"""Up to how many digits an epoch time has in seconds, milliseconds, microseconds, nanoseconds; and the microseconds in one of them."""
_EARLIEST_EPOCH = 631_152_000_000_000  # 1990 in microseconds: a smaller number is not a time but something else
_LATEST_EPOCH = 4_102_444_800_000_000  # 2100


@ibis.udf.scalar.builtin(name="try_strptime", signature=((dt.string, dt.Array(dt.string)), dt.timestamp))
def _parsed_by(text, formats):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for the engine's function of that name."""


@ibis.udf.scalar.builtin(name="try_strptime", signature=((dt.string, dt.string), _UTC))
def _parsed_with_zone(text, given):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for the engine's function of that name, for a format that holds a zone."""


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.timestamp), _UTC))
def _in_zone(zone, time):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for the engine's function of that name: the instant at which clocks in the zone show the time."""


@ibis.udf.scalar.builtin(name="make_timestamp", signature=((dt.int64,), dt.timestamp))
def _of_microseconds(count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Stand for the engine's function of that name."""


def filled(text: ir.StringValue) -> ir.StringValue:
    """Return the text without blanks around it, and null where nothing is left."""
    # most texts need no trimming, and to see that takes an eighth of the time of trimming them
    return ibis.ifelse((text >= _AFTER_BLANKS) & (text.right(1) >= _AFTER_BLANKS), text, text.strip().nullif(""))


def is_empty(value: ir.Value) -> ir.BooleanValue:
    """Tell where a source states no value; a text of blanks is none."""
    if not value.type().is_string():
        return value.isnull()
    return ibis.ifelse(value >= _AFTER_BLANKS, False, value.strip().nullif("").isnull())


def stated(text: ir.StringValue) -> ir.StringValue:
    """Return the filled text, and null where it only says that there is no value."""
    kept = filled(text)
    said = ibis.ifelse(kept.re_search(_MARKERS), ibis.null("string"), kept)
    return ibis.ifelse(text.re_search(_ORDINARY), text, said)


def read_time(text: ir.StringValue, *, slashes: SlashStyle | None, zone: str | None = None, given: str | None = None) -> ir.TimestampValue:
    """Read text as an instant in UTC; null where it is not one.

    Parameters
    ----------
    text
        As `stated` leaves it.
    slashes
        Which number comes first in dates such as `03/04/2024`; they are not read if None.
    zone
        The zone of times that name none; UTC if None.
    given
        A format in the codes of `strptime`, instead of the ways that are understood without.
    """
    if given is not None and ("%z" in given or "%Z" in given):
        return _plausible(_parsed_with_zone(text, given).cast("timestamp"))
    if given is not None:
        return _plausible(_to_utc(_parsed_by(text, ibis.array([given])), zone))
    ways = [_iso(text, zone), _numeric(text, zone)]
    if slashes is not None:
        ways.append(_to_utc(_slashed(text, slashes), zone))
    return ibis.coalesce(*ways)


def read_typed_time(value: ir.Value, *, zone: str | None = None) -> ir.TimestampValue | None:
    """Read a column that is no text as an instant in UTC; None if its type cannot hold a time."""
    kind = value.type()
    if kind.is_timestamp():
        return _plausible(value.cast("timestamp") if kind.timezone is not None else _to_utc(value.cast("timestamp"), zone))
    if kind.is_date():
        return _plausible(_to_utc(value.cast("timestamp"), zone))
    if kind.is_integer() or kind.is_floating() or kind.is_decimal():
        return _numeric(_digits(value), zone)
    return None


def _digits(value: ir.NumericValue) -> ir.StringValue:
    return (value if value.type().is_integer() else value.cast("decimal(38, 6)")).cast("string")


def _plausible(time: ir.TimestampValue) -> ir.TimestampValue:
    """Drop infinity and years that only a sentinel or a slip of the pen has."""
    return ibis.ifelse(
        time.between(ibis.timestamp("1900-01-01"), ibis.timestamp("9999-12-31 23:59:59.999999")), time, ibis.null("timestamp")
    )


def _to_utc(time: ir.TimestampValue, zone: str | None) -> ir.TimestampValue:
    return time if zone is None else _in_zone(zone, time).cast("timestamp")


def _iso(text: ir.StringValue, zone: str | None) -> ir.TimestampValue:
    shaped = ibis.ifelse(text.re_search(_ISO), text, ibis.null("string"))
    absolute = shaped.try_cast(_UTC).cast("timestamp")
    if zone is None:
        return absolute
    return ibis.ifelse(text.re_search(_ZONE), absolute, _to_utc(shaped.try_cast("timestamp"), zone))


def _numeric(text: ir.StringValue, zone: str | None) -> ir.TimestampValue:
    compact = _to_utc(text.re_replace(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3").try_cast("timestamp"), zone)
    return ibis.ifelse(text.re_search(_COMPACT), compact, ibis.ifelse(text.re_search(_EPOCH), _epoch(text), ibis.null("timestamp")))


def _epoch(text: ir.StringValue) -> ir.TimestampValue:
    digits = text.re_replace(r"\..*", "").length()
    scale = ibis.cases(*((digits <= most, ibis.literal(scale).cast("decimal(10, 3)")) for most, scale in EPOCH_UNITS))
    microseconds = (text.try_cast("decimal(27, 6)") * scale).cast("int64")
    inside = microseconds.between(_EARLIEST_EPOCH, _LATEST_EPOCH)
    return ibis.ifelse(inside, _of_microseconds(microseconds), ibis.null("timestamp"))


def _slashed(text: ir.StringValue, style: SlashStyle) -> ir.TimestampValue:
    day = "%d/%m/" if style == "day first" else "%m/%d/"
    plain = text.re_replace(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d+)", r"\1/\2/\3").re_replace(r"[T ,]+(\d)", r" \1")
    long, short = (_parsed_by(plain, ibis.array([day + year + clock for clock in _CLOCKS])) for year in ("%Y", "%y"))
    is_long = text.re_search(r"^\d{1,2}[/.-]\d{1,2}[/.-]\d{4}")
    return ibis.ifelse(text.re_search(_SLASHES), ibis.ifelse(is_long, long, short), ibis.null("timestamp"))


def read_number(text: ir.StringValue, *, style: NumberStyle) -> ir.FloatingValue:
    """Read text, as `stated` leaves it, as a number; null where it is not one."""
    # most numbers need no cleaning, and whether they do is seen fastest by a pattern
    if style == "point":
        return ibis.ifelse(text.re_search(_PLAIN), text.try_cast("float64"), _cleaned_number(text, style))
    # what has neither a comma nor groups of three digits can only be meant with a point
    grouped = text.contains(",") | ~text.re_search(_PLAIN) | text.re_search(_DOTTED)
    return ibis.ifelse(
        text.re_search(_PLAIN_WHOLE), text.try_cast("float64"), ibis.ifelse(grouped, _cleaned_number(text, style), ibis.null("float64"))
    )


def _cleaned_number(text: ir.StringValue, style: NumberStyle) -> ir.FloatingValue:
    plain = _plain(text)
    shaped = ibis.ifelse(plain.re_search(_POINT if style == "point" else _COMMA), plain, ibis.null("string"))
    digits = shaped.replace(",", "") if style == "point" else shaped.replace(".", "").replace(",", ".")
    return finite(digits.try_cast("float64"))


def finite(number: ir.FloatingValue) -> ir.FloatingValue:
    """Drop infinity and NaN."""
    return ibis.ifelse(number.isinf() | number.isnan(), ibis.null("float64"), number)


def _plain(text: ir.StringValue) -> ir.StringValue:
    return text.re_replace(r"[\s\x{00a0}\x{202f}'$€£¥₹]", "").re_replace("\u2212", "-")


def read_flag(text: ir.StringValue) -> ir.BooleanValue:
    """Read text, as `stated` leaves it, as true or false; null where it is neither."""
    return ibis.cases((text.re_search(_YES), True), (text.re_search(_NO), False))


@dataclass(frozen=True)
class Evidence:
    """How many values of a text column can be read in which way.

    Parameters
    ----------
    stated
        Values that are there; `markers` only say that there is none.
    times
        Those that are a time whatever the order of day and month; `slashed` may be one if the order is known, `day_first` and
        `month_first` in one order only.
    numbers, point_only, comma_only
        Those that are a number, and those that are one in one style only.
    whole, padded, flags
        Those that are a whole number, start with a superfluous zero, are true or false.
    """

    stated: int = 0
    markers: int = 0
    times: int = 0
    slashed: int = 0
    day_first: int = 0
    month_first: int = 0
    numbers: int = 0
    point_only: int = 0
    comma_only: int = 0
    whole: int = 0
    padded: int = 0
    flags: int = 0

    def __add__(self, other: "Evidence") -> "Evidence":
        return Evidence(*(mine + more for mine, more in zip(astuple(self), astuple(other), strict=True)))

    @property
    def decided(self) -> tuple[NumberStyle, SlashStyle | None, bool]:
        """All that the values of a column decide together about how each of them is read."""
        return self.number_style, self.slash_style, self.is_ambiguous

    @property
    def is_ambiguous(self) -> bool:
        """Whether many values may be dates of which the column does not show which number is the day."""
        return self.slash_style is None and self.slashed * 2 >= max(self.stated, 1)

    @property
    def number_style(self) -> NumberStyle:
        """The style in which the column's numbers are written."""
        return "comma" if self.comma_only and not self.point_only else "point"

    @property
    def slash_style(self) -> SlashStyle | None:
        """The order of day and month; None where the values do not show it, or contradict each other."""
        if bool(self.day_first) == bool(self.month_first):
            return None
        return "day first" if self.day_first else "month first"


def gather(text: ir.StringColumn, said: ir.StringColumn, wanted: Wanted) -> dict[str, ir.BooleanColumn]:
    """Tell what each value of a column adds to the counts of an `Evidence`, by their names.

    Parameters
    ----------
    said
        The column as `stated` leaves it.
    wanted
        What the column may be; only what bears on it is looked at.
    """
    found = {"stated": said.notnull(), "markers": filled(text).notnull() & said.isnull()}
    if wanted in ("time", "anything"):
        found |= {
            "times": ibis.coalesce(_iso(said, None), _numeric(said, None)).notnull(),
            "day": _slashed(said, "day first").notnull(),
            "month": _slashed(said, "month first").notnull(),
        }
    if wanted in ("number", "anything"):
        found |= {"point": read_number(said, style="point").notnull(), "comma": read_number(said, style="comma").notnull()}
    if wanted == "anything":
        plain = _plain(said)
        found |= {
            "whole": plain.re_search(_PLAIN_WHOLE),
            "padded": plain.re_search(r"^0\d"),
            "flags": said.re_search(r"(?i)^(true|false)$"),
        }
    return found


def count(gathered: Mapping[str, ir.BooleanColumn]) -> dict[str, ir.IntegerScalar]:
    """Return the counts of an `Evidence`, by name, from what was gathered."""
    found = dict(gathered)
    if "day" in found:
        day, month = found.pop("day"), found.pop("month")
        found |= {"slashed": day | month, "day_first": day & ~month, "month_first": month & ~day}
    if "point" in found:
        point, comma = found.pop("point"), found.pop("comma")
        found |= {"numbers": point | comma, "point_only": point & ~comma, "comma_only": comma & ~point}
    return {name: condition.sum().coalesce(0) for name, condition in found.items()}
