"""What a simulated shop is made from: its size, its seed and how noisy its log is."""

import dataclasses

from tfebr.infrastructure.checks import check_number, conform

_INTEGERS = {
    "items": (200, 50_000_000),
    "requests": (1, 10_000_000_000),
    "users": (1, 100_000_000),
    "days": (1, 3650),
    "seed": (0, 2**63 - 1),
    "page_size": (1, 100),
}
_SHARES = {"noisy_click_share": 0.8, "exploration_share": 0.5}


@dataclasses.dataclass(frozen=True)
class SimulatorConfig:
    """Settings of a simulated shop; `PRESETS` holds three ready ones.

    Attributes:
        items: rows of the catalogue, at least 200.
        requests: search requests in the log.
        users: people who may search; activity is long-tailed, so some never do.
        days: length of the log in days.
        seed: everything is drawn from it; equal configs give equal data.
        noisy_click_share: expected share of clicks that fall on irrelevant items, driven by position and popularity alone, 0 to 0.8.
        page_size: items shown for a request, 1 to 100; fewer when the production search finds fewer.
        exploration_share: expected share of shown items that the production search did not rank but drew from the category, 0 to 0.5.

    Raises:
        ConfigError: a field has a wrong type or is out of range; the message names it.
    """

    items: int = 20_000
    requests: int = 100_000
    users: int = 8_000
    days: int = 30
    seed: int = 1
    noisy_click_share: float = 0.1
    page_size: int = 20
    exploration_share: float = 0.05

    def __post_init__(self):
        conform(self)
        for name, (low, high) in _INTEGERS.items():
            check_number(name, getattr(self, name), f"[{low}, {high}]", whole=True)
        for name, share in _SHARES.items():
            check_number(name, getattr(self, name), f"[0, {share}]")


PRESETS = {
    "tiny": SimulatorConfig(items=500, requests=3_000, users=300, days=14),
    "small": SimulatorConfig(),
    "large": SimulatorConfig(items=1_000_000, requests=5_000_000, users=300_000, days=60),
}
