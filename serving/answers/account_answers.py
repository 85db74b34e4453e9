"""From a score set to what a caller gets to read: the one place where the API's answers and the pages' contents are made."""

from collections.abc import Iterable, Iterator, Sequence

from features.feature import Target
from serving.answers import schema
from serving.answers.portfolio import BookTotals
from serving.scores.account_json import account_json, as_json, pieces_of, prediction_json, render_rows
from serving.scores.explained import closed_fields, json_value
from serving.scores.reasons import Contribution, Explanation, explain_score
from serving.scores.scoring import ScoreSet
from serving.scores.sharing import View

__all__ = [
    "account_answer",
    "account_bytes",
    "as_of",
    "as_of_json",
    "book_answer",
    "book_bytes",
    "explain_account",
    "predict_rows",
    "predictions_bytes",
    "predictions_stream",
    "summary_bytes",
    "totals_answer",
]

_CHUNK = 256
"""Accounts that are written at once: enough to share the work, and few enough to keep in memory."""


def as_of(score_set: ScoreSet, view: View) -> schema.AsOf:
    """Return what answers from this score set stand on."""
    manifest = score_set.manifest
    values = {
        "score_set": manifest.version,
        "cutoff": manifest.cutoff,
        "scored_at": manifest.scored_at,
        "health_version": manifest.health.version,
        "currency": manifest.currency,
        "provisional": [target for target, model in manifest.models.items() if model.provisional],
        "sources": [schema.Source(**view.share("Source", vars(source))) for source in manifest.sources],
    }
    return schema.AsOf(**view.share("AsOf", values))


def book_answer(score_set: ScoreSet, rows: Iterable[int], totals: BookTotals, view: View, *, next_cursor: str | None = None) -> schema.Book:
    """Return these rows of the book, in this order, and what all that the filters leave add up to."""
    values = {
        "accounts": [schema.AccountSummary.model_validate_json(summary) for summary in summary_bytes(score_set, list(rows), view)],
        "totals": totals_answer(totals, view),
        "next_cursor": next_cursor,
        "as_of": as_of(score_set, view),
    }
    return schema.Book(**view.share("Book", values))


def book_bytes(score_set: ScoreSet, rows: Sequence[int], totals: BookTotals, view: View, *, next_cursor: str | None = None) -> bytes:
    """Return the same as `book_answer`, as JSON."""
    cursor = view.share("Book", {"next_cursor": next_cursor})["next_cursor"]
    return b"".join(
        (
            b'{"accounts":[' + b",".join(summary_bytes(score_set, rows, view)),
            b'],"totals":' + totals_answer(totals, view).model_dump_json().encode(),
            b',"next_cursor":' + as_json(cursor),
            b',"as_of":' + as_of_json(score_set, view, "Book") + b"}",
        )
    )


def totals_answer(totals: BookTotals, view: View) -> schema.Totals:
    """Return what accounts add up to."""
    return schema.Totals(**view.share("Totals", vars(totals) | {"bands": dict(totals.bands)}))


def account_answer(score_set: ScoreSet, row: int, view: View) -> schema.Account:
    """Return one account with its scores explained."""
    return schema.Account.model_validate_json(account_bytes(score_set, row, view))


def account_bytes(score_set: ScoreSet, row: int, view: View) -> bytes:
    """Return one account with its scores explained: a whole `schema.Account` as JSON."""
    return account_json(pieces_of(score_set, [row], view)[0], as_of_json(score_set, view, "Account"))


def summary_bytes(score_set: ScoreSet, rows: Sequence[int], view: View) -> list[bytes]:
    """Return for each account a `schema.AccountSummary` as JSON."""
    return [pieces.summary for pieces in pieces_of(score_set, rows, view)]


def explain_account(score_set: ScoreSet, row: int, target: Target) -> Explanation:
    """Return one account's score of one target, split into drivers."""
    package = score_set.packages[target]
    parts = score_set.parts[target][row]
    medians = score_set.peers.get(score_set.accounts["segment"][row], {})
    contributions = [
        Contribution(
            feature=feature,
            part=float(part),
            value=json_value(score_set.values[feature.name][row]),
            earlier=json_value(score_set.earlier[feature.name][row]),
            peers=medians.get(feature.name),
        )
        for feature, part in zip(package.catalogue, parts[:-1], strict=True)
    ]
    raw = float(score_set.accounts[f"{target}_raw"][row])
    probability = float(score_set.accounts[f"{target}_probability"][row])
    calibrator = package.calibrator_at(lambda name: score_set.values[name][row])
    return explain_score(target, contributions, base=float(parts[-1]), raw=raw, probability=probability, calibrator=calibrator)


def predict_rows(score_set: ScoreSet, rows: Sequence[schema.FeatureRow], view: View) -> list[bytes]:
    """Score rows of features on the fly with the score set's models, and explain them: for each a `schema.Prediction` as JSON.

    Raises
    ------
    PackageError
        If a feature is missing, or a number feature holds text.
    """
    return render_rows(score_set, [(row.id, row.features) for row in rows], view)


def predictions_stream(score_set: ScoreSet, rows: Sequence[int], missing: Sequence[str], view: View) -> Iterator[bytes]:
    """Yield, in chunks, the `schema.Predictions` of some accounts as JSON; `missing` are those that are not there for the caller."""
    chunks = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
    results = ([prediction_json(pieces) for pieces in pieces_of(score_set, chunk, view)] for chunk in chunks)
    return _predictions_json(results, score_set, missing, view)


def predictions_bytes(score_set: ScoreSet, results: Sequence[bytes], view: View) -> bytes:
    """Return `schema.Predictions` of rows of features as JSON, given what `predict_rows` returned."""
    return b"".join(_predictions_json([results], score_set, (), view))


def _predictions_json(chunks: Iterable[Sequence[bytes]], score_set: ScoreSet, missing: Sequence[str], view: View) -> Iterator[bytes]:
    closed = closed_fields(view, "Predictions", ("results", "not_found", "as_of"))
    yield b'{"results":' + (b"null" if "results" in closed else b"[")
    if "results" not in closed:
        comma = b""
        for chunk in chunks:
            yield comma + b",".join(chunk)
            comma = b","
        yield b"]"
    yield b',"not_found":' + (b"null" if "not_found" in closed else as_json(missing))
    yield b',"as_of":' + as_of_json(score_set, view, "Predictions") + b"}"


def as_of_json(score_set: ScoreSet, view: View, record: str) -> bytes:
    """Return the field `as_of` of a record; it is the same for all accounts of the score set."""
    key = "as of", record, view.policy.fingerprint, view.tier, view.caller.is_vendor
    found: bytes | None = score_set.memory.get(key)
    if found is None:
        closed = closed_fields(view, record, ("as_of",))
        found = score_set.memory[key] = b"null" if closed else as_of(score_set, view).model_dump_json().encode()
    return found
