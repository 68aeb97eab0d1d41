"""Decide which version of a notification wins, and how many clicks that is worth. Pure arithmetic on counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from np6_assets.rates.measures import Share, sum_shares
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

    def rank(contest: Contest) -> tuple[float, int, int]:
        sends = sum(share.whole for _, share in contest.versions)
        return -contest.winner.gain if contest.winner else 0.0, -sends, contest.activation_id

    return sorted(found, key=rank)


def _decide(activation_id: int, by_version: ByVersion, comparisons: list[Comparison]) -> Contest:
    shares = {version: sum_shares(strata.values()) for version, strata in by_version.items()}
    winners = (_find_winner(version, shares, comparisons) for version in shares)
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
        sign, other = (1, one.baseline) if one.version == version else (-1, one.version)
        differences = sorted(sign * (end or 0.0) for end in (one.low, one.difference, one.high))
        if not one.is_real or differences[1] <= 0:
            return None
        beaten.append(other)
        sends = shares[other].whole
        low, gain, high = (total + end * sends for total, end in zip((low, gain, high), differences, strict=True))
    return Winner(version, tuple(beaten), gain, low, high) if beaten else None
