"""What an endpoint costs: prices, and a cap in dollars."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from facellava.endpoint.request import Usage
from facellava.errors import FacellavaError, OutOfBudget

_MILLION: Final = 1_000_000
_ROUNDING: Final = 1e-9  # dollars

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """Dollars for a million tokens of one model; cached input costs as other input where None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars
    output: Dollars
    cached: Dollars | None = None

    def dollars(self, usage: Usage) -> float:
        """What a request with its reply costs."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input - usage.cached
        total = fresh * self.input + usage.cached * cached + usage.output * self.output
        return total / _MILLION


Prices = Mapping[str, Price]
FREE: Final = Price(input=0, output=0)


def read_prices(path: Path) -> dict[str, Price]:
    """A price table: a JSON file, or TOML where the name ends in .toml.

    Each entry is a model's name with its dollars for a million tokens::

        ["gpt-4o-mini"]
        input = 0.15
        cached = 0.075
        output = 0.60

    Raises:
        FacellavaError: the file cannot be read or is of another form.
    """
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        return TypeAdapter(dict[str, Price]).validate_python(table)
    except (OSError, ValidationError, ValueError) as error:
        what = str(error).splitlines()
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            what = [f"{' '.join(str(place) for place in first['loc'])}: {first['msg']}"]
        raise FacellavaError(
            f"The price table '{path}' cannot be used ({what[0]}); each model needs input and "
            "output, in dollars for a million tokens."
        ) from error


class Budget:
    """Dollars that all runs on one cache may spend together.

    The worst case of a request is reserved before it is sent and what it did cost is booked after,
    so the cap holds whatever is under way.
    """

    def __init__(self, prices: Prices, cap: float | None = None, spent: float = 0.0) -> None:
        """
        Args:
            prices: by model; a model that is not there is free, and refused where there is a cap.
            cap: dollars; None for no limit.
            spent: what earlier runs spent (:meth:`EndpointCache.spent`).
        """
        self.prices, self.cap, self.spent = prices, cap, spent
        self._reserved = 0.0
        self._under_way: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._booked = asyncio.Event()

    def price(self, model: str) -> Price:
        """The model's price.

        Raises:
            FacellavaError: there is a cap and no price.
        """
        if model not in self.prices and self.cap is not None:
            raise FacellavaError(
                f"A cap of ${self.cap:.2f} cannot be kept without a price of '{model}'; add it to "
                "the price table, with zeros where it costs nothing."
            )
        return self.prices.get(model, FREE)

    async def reserve(self, model: str, worst: Callable[[], float]) -> float:
        """Set the worst case aside; waits for requests under way that may leave room for it.

        Under a cap a model is sent one request at a time until it has answered one: before that
        nobody knows what its pictures cost.

        Args:
            worst: dollars that the request may cost, as far as is known by now.

        Returns:
            The dollars set aside.

        Raises:
            OutOfBudget: there is no room and nothing is under way.
        """
        while (self._is_first(model) and self._under_way[model]) or (
            not self._fits(worst()) and self._under_way.total()
        ):
            await self._booked.wait()
        dollars = worst()
        if not self._fits(dollars):
            raise OutOfBudget(
                f"The next request may cost ${dollars:.4f} and ${self.spent:.4f} of the "
                f"${self.cap:.2f} are spent; raise the cap and run again, all replies are kept."
            )
        self._under_way[model] += 1
        self._reserved += dollars
        return dollars

    def book(self, model: str, reserved: float, dollars: float, *, answered: bool) -> None:
        """The request that so much was reserved for did cost so much."""
        self._under_way[model] -= 1
        self._reserved -= reserved
        self.spent += dollars
        if answered:
            self._answered.add(model)
        # Wakes all who wait now; later ones wait for the next booking.
        self._booked.set()
        self._booked.clear()

    def _is_first(self, model: str) -> bool:
        return self.cap is not None and model not in self._answered

    def _fits(self, dollars: float) -> bool:
        return self.cap is None or self.spent + self._reserved + dollars <= self.cap + _ROUNDING
