"""The simulated account: its notifications, how often they are sent and how receivers react."""

from dataclasses import dataclass
from datetime import date
from typing import Self

# weights of the hours of the UTC day
_AWAKE = (1, 1, 0, 0, 0, 1, 4, 9, 12, 12, 11, 11, 14, 13, 11, 10, 11, 13, 16, 18, 17, 12, 7, 3)
_SHOPPING = (6, 3, 1, 1, 1, 1, 2, 4, 6, 7, 8, 9, 11, 10, 9, 9, 10, 12, 14, 17, 21, 22, 17, 11)
_WAREHOUSE = (0, 0, 0, 0, 0, 2, 9, 14, 16, 15, 13, 9, 7, 12, 15, 16, 12, 6, 1, 0, 0, 0, 0, 0)
_CAMPAIGN = (0,) * 10 + (60, 6) + (0,) * 6 + (40, 4) + (0,) * 4
_MORNING = (0,) * 7 + (5, 20, 4) + (0,) * 14

# per cent of an average day, Monday first
_EVERY_DAY = (104, 106, 105, 107, 110, 88, 80)
_BEFORE_WEEKEND = (80, 85, 90, 100, 135, 120, 90)
_WORKING_DAYS = (130, 120, 118, 118, 122, 70, 22)
_MONDAY = (700, 0, 0, 0, 0, 0, 0)

Link = tuple[str | None, str]
"""Label and address of a link."""

_PRODUCT: Link = (None, "deeplink://product?id=594")
_CART: Link = ("Back to my cart", "deeplink://cart")
_SALE: Link = ("See the sale", "https://shop.example.com/sale?from=push")
_ORDER: Link = ("Track my order", "deeplink://order/track")
_DIGEST: Link = (None, "https://shop.example.com/digest")


@dataclass(frozen=True)
class SimulatedNotification:
    """A notification and how its receivers behave."""

    id: int
    name: str
    sends: int  # of 1000 sends of the account, on an average day
    hits: tuple[float, ...]  # for each version, the share of impressions that get a hit; versions get equal sends
    bounces: tuple[float, float]  # shares of sends that bounce hard, and soft
    hours: tuple[int, ...] = _AWAKE
    days: tuple[int, ...] = _EVERY_DAY
    links: tuple[Link, ...] = (_PRODUCT,)
    channel: str = "marketing"
    urgent: bool = False


NOTIFICATIONS = (
    SimulatedNotification(101, "Welcome", 90, hits=(0.085, 0.14), bounces=(0.004, 0.006)),
    SimulatedNotification(118, "Cart reminder", 220, (0.115,), (0.012, 0.008), _SHOPPING, links=(_CART, _PRODUCT)),
    SimulatedNotification(
        127, "Flash sale", 330, (0.028, 0.046), (0.021, 0.012), _CAMPAIGN, _BEFORE_WEEKEND, (_SALE, _PRODUCT)
    ),
    SimulatedNotification(
        133, "Order shipped", 210, (0.26,), (0.007, 0.015), _WAREHOUSE, _WORKING_DAYS, (_ORDER,), "orders", urgent=True
    ),
    SimulatedNotification(
        142, "Weekly digest", 50, (0.052, 0.061), (0.018, 0.009), _MORNING, _MONDAY, (_DIGEST, _PRODUCT)
    ),
    SimulatedNotification(156, "Win-back", 100, hits=(0.012, 0.007), bounces=(0.094, 0.021)),
)


@dataclass(frozen=True)
class Account:
    """A simulated account. Equal accounts have the same events.

    `sends_per_day` is the average over a week; a day's number varies with the weekday and by up to a tenth. Nothing is
    sent before `first_day` (UTC).
    """

    seed: int = 6
    agency: str = "DEMO"
    customer: str = "028"
    sends_per_day: int = 6_000
    first_day: date = date(2026, 1, 1)
    notifications: tuple[SimulatedNotification, ...] = NOTIFICATIONS

    @classmethod
    def small(cls) -> Self:
        """Build an account of about 50 sends a day: enough for every asset, and fast in tests."""
        return cls(sends_per_day=50)

    @property
    def contacts(self) -> int:
        """The number of contacts: each gets a send every few days."""
        return max(self.sends_per_day * 5, 200)
