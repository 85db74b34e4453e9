import pytest

from training.promotion import Incumbent, decide


@pytest.mark.parametrize(
    ("auc", "rule_auc", "incumbent", "role", "said"),
    [
        (0.70, 0.70, None, "challenger", "does not beat the best single rule"),
        (0.69, 0.70, Incumbent(unfit="gone"), "challenger", "recency has an AUC of 0.700, the model 0.690"),
        (0.71, 0.70, None, "champion", "first model"),
        (0.80, 0.70, Incumbent(auc=0.80), "champion", "previous champion 0.800"),
        (0.80, 0.70, Incumbent(auc=0.81), "challenger", "its AUC is 0.810, the new one has 0.800"),
        (0.80, 0.70, Incumbent(auc=0.99, unfit="features are missing"), "champion", "features are missing"),
        (0.80, 0.70, Incumbent(incomparable="it has seen the labels"), "challenger", "it has seen the labels"),
    ],
)
def test_the_champion_is_the_one_that_earned_it(auc, rule_auc, incumbent, role, said):
    decision = decide(auc, rule="recency", rule_auc=rule_auc, incumbent=incumbent)
    assert decision.role == role
    assert said in decision.reason
