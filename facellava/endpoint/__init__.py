"""One client for any OpenAI-compatible endpoint: cached, costed, patient, resumable.

Annotators, raters, judges and evaluations ask through it::

    with EndpointCache(Path("replies.sqlite")) as cache:
        budget = Budget(read_prices(Path("prices.toml")), cap=5.0, spent=cache.spent())
        async with Endpoint(settings, cache, budget) as endpoint:
            found = await endpoint.ask([message("Which colour?", [jpeg])], Colour)

Every reply is in the cache before it is handed out, so nothing is paid for twice, whatever kills
the run. Requests that are the same, at once or later, share one reply.
"""

from facellava.endpoint.cache import EndpointCache, Totals
from facellava.endpoint.client import Asker, Endpoint
from facellava.endpoint.cost import (
    Budget,
    Price,
    Prices,
    read_prices,
)
from facellava.endpoint.dry_run import DryRun, Estimate
from facellava.endpoint.request import EndpointSettings, Failure, Message, message, refuses
from facellava.errors import EndpointStopped, OutOfBudget

__all__ = [
    "Asker", "Budget", "DryRun", "Endpoint", "EndpointCache", "EndpointSettings",
    "EndpointStopped", "Estimate", "Failure", "Message", "OutOfBudget", "Price", "Prices",
    "Totals", "message", "read_prices", "refuses",
]  # fmt: skip
