"""Compare versions in textbook cases, hand-made cases, and cases without a difference."""

import math
from statistics import NormalDist

import pytest

from np6_assets.rates.measures import Share
from np6_assets.report.comparison import (
    Comparison,
    Strata,
    compare_versions,
    compute_cmh_p_value,
    compute_risk_difference,
    estimate_dispersion,
)

# Admissions to six departments of Berkeley, 1973: women, men.
BERKELEY = [
    (Share(89, 108), Share(512, 825)),
    (Share(17, 25), Share(353, 560)),
    (Share(202, 593), Share(120, 325)),
    (Share(131, 375), Share(138, 417)),
    (Share(94, 393), Share(53, 191)),
    (Share(24, 341), Share(22, 373)),
]


def test_p_value_matches_a_textbook():
    # Agresti, Categorical Data Analysis: the statistic is 1.52, P = 0.217
    women, men = zip(*BERKELEY, strict=True)
    assert compute_cmh_p_value(women, men) == pytest.approx(0.2169, abs=5e-5)


def test_p_value_of_one_day_matches_the_two_proportion_z_test():
    one, other = Share(120, 1_000), Share(90, 1_000)
    pooled = 210 / 2_000
    z = (0.12 - 0.09) / math.sqrt(pooled * (1 - pooled) * (1 / 1_000 + 1 / 1_000))
    expected = 2 * NormalDist().cdf(-abs(z))
    assert compute_cmh_p_value([one], [other]) == pytest.approx(expected, rel=0.01)
    difference = compute_risk_difference([one], [other])
    assert difference is not None
    middle, low, high = difference
    wald = math.sqrt(0.12 * 0.88 / 1_000 + 0.09 * 0.91 / 1_000) * 1.959963984540054
    assert middle == pytest.approx(0.03)
    assert (low, high) == (pytest.approx(0.03 - wald, rel=1e-3), pytest.approx(0.03 + wald, rel=1e-3))


def build_versions(**days: tuple[Share | None, Share | None]) -> dict[int, dict[str | None, Strata]]:
    """Build a notification with versions a and b, sent on these days."""
    return {
        7: {
            name: {(day,): share for day, shares in days.items() if (share := shares[at]) is not None}
            for at, name in enumerate("ab")
        }
    }


def get_only(comparisons: list[Comparison]) -> Comparison:
    [comparison] = comparisons
    return comparison


def test_difference_compares_versions_within_days():
    # b has twice the hit rate over all, as it was mostly sent on the good day; on each day the two are alike
    found = get_only(
        compare_versions(
            build_versions(good=(Share(40, 200), Share(400, 2_000)), bad=(Share(100, 2_000), Share(10, 200)))
        )
    )
    assert found.share.rate != found.baseline_share.rate
    assert found.difference == pytest.approx(0)
    assert not found.is_real


def test_versions_never_sent_on_the_same_day_are_not_compared():
    found = get_only(compare_versions(build_versions(monday=(Share(10, 100), None), tuesday=(None, Share(90, 100)))))
    assert (found.difference, found.p_value, found.is_real, found.days) == (None, None, False, 0)


def test_few_hits_have_no_p_value():
    for one, other in (
        (Share(0, 1_000), Share(0, 1_000)),
        (Share(1_000, 1_000), Share(1_000, 1_000)),
        (Share(3, 3), Share(0, 4)),
        (Share(4, 1_000), Share(0, 1_000)),
        (Share(1, 1), Share(500, 1_000)),
    ):
        found = get_only(compare_versions(build_versions(day=(one, other))))
        assert (found.p_value, found.is_real) == (None, False)


def test_version_with_the_most_sends_is_compared_with():
    found = compare_versions({1: {"x": {(1,): Share(5, 50)}, None: {(1,): Share(9, 90)}, "y": {(1,): Share(7, 70)}}})
    assert {(one.version, one.baseline) for one in found} == {("x", None), ("y", None), ("x", "y")}
    assert compare_versions({1: {"x": {(1,): Share(5, 50)}}}) == []


def test_p_values_are_corrected_by_holm():
    pairs = {
        1: (Share(130, 1_000), Share(100, 1_000)),
        2: (Share(150, 1_000), Share(100, 1_000)),
        3: (Share(101, 1_000), Share(100, 1_000)),
        4: (Share(1, 10), Share(1, 20)),  # not tested, so it does not count
    }
    raw = {key: compute_cmh_p_value([one], [other]) for key, (one, other) in pairs.items()}
    found = compare_versions(
        {key: {"new": {(1,): one}, "old": {(1,): other, (2,): Share(1, 9)}} for key, (one, other) in pairs.items()}
    )
    corrected = {one.activation_id: one.p_value for one in found}
    assert raw[1] is not None
    assert raw[2] is not None
    assert corrected[2] == pytest.approx(3 * raw[2])
    assert corrected[1] == pytest.approx(2 * raw[1])
    assert corrected[3] == raw[3]
    assert corrected[4] is None
    # what one test alone would have called real
    assert raw[1] < 0.05 < 2 * raw[1]
    assert [one.activation_id for one in found if one.is_real] == [2]


def test_varying_days_widen_the_interval():
    # worked out by hand: differences of 4, -2 and 4 points on the same 1,000 and 1,000 sends at a mean of 10 %
    ones = [Share(120, 1_000), Share(90, 1_000), Share(120, 1_000)]
    others = [Share(80, 1_000), Share(110, 1_000), Share(80, 1_000)]
    variance = 0.1 * 0.9 * 2 / 1_000
    assert estimate_dispersion(ones, others) == pytest.approx((0.02**2 * 2 + 0.04**2) / variance / 2)
    assert estimate_dispersion(ones[:1], others[:1]) == 1.0
    assert estimate_dispersion([ones[0]] * 3, [others[0]] * 3) == 1.0
    assert estimate_dispersion([Share(0, 10), Share(1, 0)], [Share(0, 10), Share(1, 5)]) == 1.0
    alone, allowed = compute_cmh_p_value(ones, others), compute_cmh_p_value(ones, others, 4.0)
    assert alone is not None
    assert allowed == pytest.approx(2 * NormalDist().cdf(NormalDist().inv_cdf(alone / 2) / 2))
