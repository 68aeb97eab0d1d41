"""Decide which version of a notification wins, and how many clicks that is worth. Pure arithmetic on counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from np6_assets.rates.measures import Share
from np6_assets.report.comparison import Comparison, Strata, compare_versions

ByVersion = Mapping[str | None, Strata]


@dataclass(frozen=True)
class Winner:
    """A version that is better than all others it can be tested against.

    `gain` is how many more clicks there had been if it had been sent in place of these (`low` to `high`: from the ends
    of the 95 % intervals).
    """

    version: str | None
    beaten: tuple[str | None, ...]
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Contest:
    """The versions of a notification: the hits of their delivered sends, the most first, and who wins."""

    activation_id: int
    versions: tuple[tuple[str | None, Share], ...]
    comparisons: tuple[Comparison, ...]
    winner: Winner | None

    @property
    def verdict(self) -> str:
        """Why there is no winner."""
        if all(comparison.difference is None for comparison in self.comparisons):
            return "never sent on the same day, so not comparable"
        if all(comparison.p_value is None for comparison in self.comparisons):
            return "too few clicks to tell"
        return "no winner: the differences are no larger than chance explains"


def decide_contests(versions: Mapping[int, ByVersion]) -> list[Contest]:
    """Decide between the versions of notifications; winners come first, by their gain, then the most sends."""
    compared: dict[int, list[Comparison]] = defaultdict(list)
    for comparison in compare_versions(versions):
        compared[comparison.activation_id].append(comparison)
    found = [_decide(key, versions[key], of_key) for key, of_key in compared.items()]
    return sorted(found, key=lambda one: (-one.winner.gain if one.winner else 0.0, -_sum_sends(one), one.activation_id))


def _sum_sends(contest: Contest) -> int:
    return sum(share.whole for _, share in contest.versions)


def _decide(activation_id: int, by_version: ByVersion, comparisons: list[Comparison]) -> Contest:
    shares = {
        version: Share(sum(one.part for one in strata.values()), sum(one.whole for one in strata.values()))
        for version, strata in by_version.items()
    }
    winners = [_find_winner(version, shares, comparisons) for version in shares]
    return Contest(
        activation_id,
        tuple(sorted(shares.items(), key=lambda item: (-item[1].whole, item[0] or ""))),
        tuple(comparisons),
        next(filter(None, winners), None),
    )


def _find_winner(
    version: str | None, shares: Mapping[str | None, Share], comparisons: list[Comparison]
) -> Winner | None:
    """Find what a version wins; None where it does not win."""
    beaten: list[str | None] = []
    gain = low = high = 0.0
    for one in comparisons:
        if version not in (one.version, one.baseline) or one.p_value is None:
            continue
        assert one.difference is not None
        assert one.low is not None
        assert one.high is not None
        is_first = one.version == version
        if not one.is_real or (one.difference > 0) != is_first:
            return None
        other = one.baseline if is_first else one.version
        ends = (one.low, one.high) if is_first else (-one.high, -one.low)
        beaten.append(other)
        gain += abs(one.difference) * shares[other].whole
        low += ends[0] * shares[other].whole
        high += ends[1] * shares[other].whole
    return Winner(version, tuple(beaten), gain, low, high) if beaten else None
