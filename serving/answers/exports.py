"""The book as a file: CSV, Parquet or JSON Lines, made piece by piece, so that a large book needs no more memory than a small one.

An export holds what the list of accounts tells, for the same caller: a column that it may not read is not there. In CSV, text that a
spreadsheet would take for a formula is led by an apostrophe, as OWASP advises ("CSV Injection").
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from serving.answers.account_answers import summary_bytes
from serving.answers.portfolio import Rows
from serving.answers.schema import AccountSummary
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = ["MEDIA_TYPES", "ExportFormat", "Piece", "export_pieces"]

ExportFormat = Literal["csv", "parquet", "jsonl"]

MEDIA_TYPES: Mapping[ExportFormat, str] = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "jsonl": "application/jsonl",
}

PIECE_ROWS = 500

Piece = tuple[list[str], bytes]
"""The ids of the accounts in a piece, and its bytes."""

_COLUMNS: Mapping[str, tuple[str, pa.DataType]] = {
    "account_id": ("account_id", pa.string()),
    "name": ("name", pa.string()),
    "segment": ("segment", pa.string()),
    "csm": ("csm", pa.string()),
    "partner_id": ("partner_id", pa.string()),
    "partner_name": ("partner_name", pa.string()),
    "health": ("health", pa.int32()),
    "band": ("band", pa.string()),
    "churn_probability": ("churn_probability", pa.float64()),
    "expansion_probability": ("expansion_probability", pa.float64()),
    "arr": ("arr", pa.float64()),
    "arr_at_risk": ("arr_at_risk", pa.float64()),
    "renewal_at": ("renewal_at", pa.timestamp("us", tz="UTC")),
    "first_driver": ("first_driver", pa.string()),
    "first_driver_effect": ("first_driver", pa.string()),
    "limits": ("limits", pa.string()),
}
"""By column: the field that it is made of, and its type."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export_pieces(score_set: ScoreSet, rows: Rows, view: View, form: ExportFormat) -> Iterator[Piece]:
    """Return the file in pieces; a piece is made when it is asked for, and may hold no account at the start and the end."""
    writer = _WRITERS[form](_columns_of(view))
    for start in range(0, len(rows), PIECE_ROWS):
        found = summary_bytes(score_set, rows[start : start + PIECE_ROWS].tolist(), view)
        summaries = [AccountSummary.model_validate_json(summary) for summary in found]
        yield [summary.account_id for summary in summaries], writer.write(summaries)
    if end := writer.end():
        yield [], end


def _columns_of(view: View) -> tuple[str, ...]:
    """Return the columns that the caller may read."""
    readable = view.share("AccountSummary", dict.fromkeys(AccountSummary.model_fields, True))
    return tuple(column for column, (field, _) in _COLUMNS.items() if readable[field])


class _JsonLines:
    """An account a line, as the list of accounts has it."""

    def __init__(self, _columns: Sequence[str]) -> None:
        pass

    def write(self, summaries: Sequence[AccountSummary]) -> bytes:
        return b"".join(summary.model_dump_json().encode() + b"\n" for summary in summaries)

    def end(self) -> bytes:
        return b""


class _Csv:
    """RFC 4180, in UTF-8, with a line of names."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._started = False

    def write(self, summaries: Sequence[AccountSummary]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not self._started:
            writer.writerow(self._columns)
            self._started = True
        for summary in summaries:
            record = _record(summary)
            writer.writerow([_cell(record[column]) for column in self._columns])
        return text.getvalue().encode()

    def end(self) -> bytes:
        return b"" if self._started else self.write([])


class _Parquet:
    """A row group for each piece."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._schema = pa.schema([(column, _COLUMNS[column][1]) for column in columns])
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def write(self, summaries: Sequence[AccountSummary]) -> bytes:
        records = [_record(summary) for summary in summaries]
        columns = {name: pa.array([record[name] for record in records], self._schema.field(name).type) for name in self._schema.names}
        self._writer.write_table(pa.table(columns, schema=self._schema))
        return self._taken()

    def end(self) -> bytes:
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        """Return what was written since the last time, and forget it."""
        taken = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return taken


_WRITERS: Mapping[ExportFormat, type[_JsonLines] | type[_Csv] | type[_Parquet]] = {"csv": _Csv, "parquet": _Parquet, "jsonl": _JsonLines}


def _record(summary: AccountSummary) -> dict[str, Any]:
    driver = summary.first_driver
    return {
        **{name: getattr(summary, name) for name in AccountSummary.model_fields},
        "first_driver": driver and driver.sentence,
        "first_driver_effect": driver and driver.effect,
        "limits": " ".join(limit.code for limit in summary.limits or ()),
    }


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value.isoformat() if hasattr(value, "isoformat") else value
