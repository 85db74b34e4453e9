"""Which model is used: the champion, or the newcomer that challenges it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Decision", "Incumbent", "Role", "decide"]

Role = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Incumbent:
    """What the present champion does on the newcomer's test rows.

    Parameters
    ----------
    auc
        Of the champion's judged twin, which has seen no label of the test period; None where it cannot be measured.
    unfit
        Why the champion can no longer be used at all, if so.
    incomparable
        Why it cannot be measured on these rows though it can be used, if so.
    """

    auc: float | None = None
    unfit: str = ""
    incomparable: str = ""


@dataclass(frozen=True)
class Decision:
    """The newcomer's role, and why, in a sentence."""

    role: Role
    reason: str


def decide(auc: float, *, rule: str, rule_auc: float, incumbent: Incumbent | None) -> Decision:
    """Decide whether a new model becomes champion.

    Parameters
    ----------
    auc
        The new model's, on the test rows.
    rule, rule_auc
        The best single rule and its AUC on the same rows.
    incumbent
        The present champion on the same rows; None if there is no champion.

    Examples
    --------
    >>> decide(0.8, rule="recency", rule_auc=0.7, incumbent=None).role
    'champion'
    >>> decide(0.8, rule="recency", rule_auc=0.7, incumbent=Incumbent(auc=0.82)).reason
    'The champion stays: on the same rows its AUC is 0.820, the new one has 0.800.'
    """
    if auc <= rule_auc:
        return Decision("challenger", f"It does not beat the best single rule: {rule} has an AUC of {rule_auc:.3f}, the model {auc:.3f}.")
    if incumbent is None:
        return Decision("champion", f"It is the first model that beats the best single rule ({rule}).")
    if incumbent.unfit:
        return Decision("champion", f"The previous champion can no longer be used: {incumbent.unfit}.")
    if incumbent.auc is None:
        return Decision("challenger", f"The champion stays, because the two cannot be compared: {incumbent.incomparable}. Promote by hand.")
    if auc < incumbent.auc:
        return Decision("challenger", f"The champion stays: on the same rows its AUC is {incumbent.auc:.3f}, the new one has {auc:.3f}.")
    return Decision("champion", f"On the same rows its AUC is {auc:.3f}, that of the previous champion {incumbent.auc:.3f}.")
