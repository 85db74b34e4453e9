"""What a retention campaign that follows the scores would earn, by the published measures EMPC and EMPB.

The customers with the highest scores are contacted and offered an incentive to stay. Of those who would have left, a share gamma accepts
and stays; those who would have stayed anyway accept it all the same. How large gamma will be is not known: it has a beta distribution.

- **EMPC** (Verbraken, Verbeke and Baesens, "A novel profit maximizing metric for measuring classification performance of customer churn
  prediction models", IEEE TKDE 2013): one lifetime value for all, and for every gamma the number of contacts that earns most.
- **EMPB** (Janssens, Bogaert, Bagué and Van den Poel, "B2Boost: instance-dependent profit-driven modelling of B2B churn", Annals of
  Operations Research 2022): each customer's own value, an incentive in proportion to it, and the number of contacts that earns most on
  average over gamma. As in the empulse package, a contact costs the same whether or not the incentive is accepted.

Both are profits for each customer of the book over that of doing nothing, in the currency of the values, and are never below zero. The
costs are those of the papers unless they are given. EMPC's are those of a telecom operator in EUR: its value compares models, and is no
forecast of earnings. EMPB takes a customer's ARR at the cutoff for its value, one more year at full margin.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import betainc

from training.dataset import Array
from training.evaluation import Measures, Ranking, TestRows, rank, standard_measures

__all__ = ["PUBLISHED", "PUBLISHED_B2B", "B2BCampaign", "Campaign", "Profit", "churn_measures", "empb", "empc"]


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign for customers of one value; money in one currency.

    Parameters
    ----------
    alpha, beta
        Shape of the distribution of the share that accepts the incentive; its mean is `alpha / (alpha + beta)`.
    value
        Lifetime value of a customer who stays (CLV), more than the incentive.
    incentive, contact
        What an accepted incentive and a contact cost (d and f).
    """

    alpha: float = 6
    beta: float = 14
    value: float = 200
    incentive: float = 10
    contact: float = 1


@dataclass(frozen=True, kw_only=True)
class B2BCampaign:
    """A campaign for customers of different values; money in one currency.

    Parameters
    ----------
    alpha, beta
        As of `Campaign`.
    incentive_share
        What an accepted incentive costs, as a share of the customer's value (delta).
    contact
        What a contact costs (f).
    """

    alpha: float = 6
    beta: float = 14
    incentive_share: float = 0.05
    contact: float = 15


PUBLISHED = Campaign()
PUBLISHED_B2B = B2BCampaign()


@dataclass(frozen=True, eq=False)
class Profit:
    """What a campaign earns.

    Parameters
    ----------
    per_customer
        `(b,)` for each way to count the rows: expected maximum profit for each customer of the book.
    targeted
        `(b,)` the share of the customers that is contacted for it, on average over gamma.
    """

    per_customer: Array
    targeted: Array


def churn_measures(rows: TestRows, probability: Array) -> Measures:
    """Return what is measured of churn: the standard measures, `empc`, and `empb` where an ARR is known, with the shares contacted."""
    standard, ranking = standard_measures(rows, probability), rank(probability, rows.target)
    values = np.nan_to_num(rows.arr)

    def measured(weights: Array) -> dict[str, Array]:
        constant = _empc(ranking, weights, PUBLISHED)
        found = {**standard(weights), "empc": constant.per_customer, "empc_targeted": constant.targeted}
        if values.any():
            own = _empb(ranking, rows.target, values, weights, PUBLISHED_B2B)
            found |= {"empb": own.per_customer, "empb_targeted": own.targeted}
        return found

    return measured


def empc(target: Array, score: Array, weights: Array, *, campaign: Campaign = PUBLISHED) -> Profit:
    """Return the EMPC of scores `(n,)` for outcomes `(n,)`, 1.0 for those who leave, under weights `(n, b)`.

    Per customer: the integral over gamma of `h(gamma) max over T of CLV (gamma (1 - delta) - phi) pi0 F0(T) - CLV (delta + phi) pi1 F1(T)`,
    with `delta = d / CLV` and `phi = f / CLV`; pi0 F0 and pi1 F1 are the shares of the book that leave, or stay, and are contacted.

    The best T for a gamma is always a corner of the convex hull of the ROC curve. The hull's edges are the blocks of an isotonic
    regression of the outcomes on the scores (Fawcett and Niculescu-Mizil, "PAV and the ROC convex hull", Machine Learning 2007), and a
    block is contacted where gamma exceeds what makes it pay. So the integral is a sum over blocks of incomplete beta functions.

    Examples
    --------
    >>> target = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    >>> found = empc(target, np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9]), np.ones((8, 1)))
    >>> round(float(found.per_customer[0]), 6), round(float(found.targeted[0]), 6)
    (23.875593, 0.87437)
    """
    return _empc(rank(score, target), weights, campaign)


def empb(target: Array, score: Array, value: Array, weights: Array, *, campaign: B2BCampaign = PUBLISHED_B2B) -> Profit:
    """Return the EMPB of scores `(n,)` for outcomes `(n,)`, 1.0 for those who leave, and customer values `(n,)`, under weights `(n, b)`.

    Per customer: the maximum over T of the mean over all customers of, for those contacted, `E[gamma] (1 - delta) CLV - f` if they
    would leave and `-delta CLV - f` if not.

    Examples
    --------
    >>> found = empb(np.array([1.0, 0.0]), np.array([0.9, 0.1]), np.array([1000.0, 500.0]), np.ones((2, 1)))
    >>> float(found.per_customer[0])  # (0.3 * 0.95 * 1000 - 15) / 2
    135.0
    """
    return _empb(rank(score, target), target, value, weights, campaign)


def _empc(ranking: Ranking, weights: Array, campaign: Campaign) -> Profit:
    positives, counted = ranking.sums(weights)
    column, leaving, contacted = (np.concatenate(part) for part in zip(*_hull(positives, counted), strict=True))
    per_success = campaign.value - campaign.incentive
    costs = campaign.contact * contacted + campaign.incentive * (contacted - leaving)
    pays_from = np.divide(costs, per_success * leaving, out=np.ones_like(costs), where=leaving > 0).clip(0, 1)
    likely = 1 - betainc(campaign.alpha, campaign.beta, pays_from)
    mean = campaign.alpha / (campaign.alpha + campaign.beta) * (1 - betainc(campaign.alpha + 1, campaign.beta, pays_from))
    customers, columns = counted.sum(axis=0), weights.shape[1]
    return Profit(
        per_customer=np.bincount(column, per_success * leaving * mean - costs * likely, columns) / customers,
        targeted=np.bincount(column, contacted * likely, columns) / customers,
    )


def _hull(positives: Array, counted: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Yield for each way to count the edges of the ROC curve's convex hull: its number, positives and rows of each."""
    for column in range(counted.shape[1]):
        there = counted[:, column] > 0
        rows, leaving = counted[there, column], positives[there, column]
        starts = isotonic_regression(leaving / rows, weights=rows, increasing=False).blocks[:-1]
        yield np.full(len(starts), column), np.add.reduceat(leaving, starts), np.add.reduceat(rows, starts)


def _empb(ranking: Ranking, target: Array, value: Array, weights: Array, campaign: B2BCampaign) -> Profit:
    accepted = campaign.alpha / (campaign.alpha + campaign.beta)
    share = np.where(target == 1, accepted * (1 - campaign.incentive_share), -campaign.incentive_share)
    earned = np.cumsum(ranking.rows.multiply(share * value - campaign.contact).tocsr() @ weights, axis=0)
    contacted = np.cumsum(ranking.rows @ weights, axis=0)
    best = earned.argmax(axis=0)[None, :]
    most = np.take_along_axis(earned, best, axis=0)[0]
    customers = contacted[-1]
    return Profit(
        per_customer=np.maximum(most, 0) / customers,
        targeted=np.where(most > 0, np.take_along_axis(contacted, best, axis=0)[0], 0) / customers,
    )
