"""What a run would send and cost, found out without sending anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from pydantic import BaseModel

from facellava.endpoint.cache import EndpointCache
from facellava.endpoint.cost import Budget, Price
from facellava.endpoint.request import (
    EndpointSettings,
    Failure,
    Form,
    Message,
    Request,
    Usage,
    read_form,
    request_of,
)

_BYTES_A_TOKEN: Final = 4  # of English, on the average


@dataclass
class Estimate:
    """What a run would send and cost, counted by a dry run.

    Attributes:
        answered: requests whose reply is cached: they cost nothing.
        requests: those to send.
        text_tokens: of their words, at four bytes a token.
        pictures: in them.
        image_tokens: assumed for one picture.
        reply_tokens: of replies as long as the examples.
        dollars: for these.
        dollars_at_most: where each reply is as long as allowed; new attempts come on top.
        priced: the price is known; without, dollars are 0 and say nothing.
    """

    model: str
    image_tokens: int
    priced: bool
    answered: int = 0
    requests: int = 0
    text_tokens: int = 0
    pictures: int = 0
    reply_tokens: int = 0
    dollars: float = 0.0
    dollars_at_most: float = 0.0

    def add(self, request: Request, example: str, max_tokens: int, price: Price) -> None:
        """One more request to send, whose reply is about as long as the example."""
        text = -(-request.text_bytes // _BYTES_A_TOKEN)
        reply = -(-len(example.encode()) // _BYTES_A_TOKEN)
        tokens = text + request.pictures * self.image_tokens
        self.requests += 1
        self.text_tokens += text
        self.pictures += request.pictures
        self.reply_tokens += reply
        self.dollars += price.dollars(Usage(tokens, 0, reply))
        self.dollars_at_most += price.dollars(Usage(tokens, 0, max_tokens))

    def text(self) -> str:
        """The estimate as a sentence."""
        cost = (
            f"about ${self.dollars:.2f}, and ${self.dollars_at_most:.2f} where every reply is as "
            "long as allowed"
            if self.priced
            else "what they cost is not known, for there is no price of this model"
        )
        return (
            f"{self.model}: {self.requests} requests to send, {self.answered} already answered; "
            f"about {self.text_tokens} tokens of text, {self.pictures} pictures of "
            f"{self.image_tokens} tokens each (an assumption), about {self.reply_tokens} tokens of "
            f"replies: {cost}."
        )


class DryRun:
    """Stands where an endpoint would: answers from the cache, else counts and gives an example.

    The run goes the same way as a real one, so what it counts is what the run would send, apart
    from new attempts after unusable replies.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        cache: EndpointCache,
        budget: Budget,
        examples: Mapping[type[BaseModel], BaseModel],
    ) -> None:
        """
        Args:
            examples: for each form, a reply of the usual length.
        """
        self.settings = settings
        priced = settings.model in budget.prices
        self.estimate = Estimate(settings.model, settings.image_tokens, priced)
        self._cache, self._examples = cache, examples
        self._price = budget.price(settings.model)
        self._seen: set[str] = set()

    async def ask(self, messages: Sequence[Message], schema: type[Form]) -> Form | Failure:
        """The cached reply, or the example of the form."""
        request = request_of(self.settings, messages, schema)
        found = self._cached(request, schema)
        example = cast(Form, self._examples[schema])
        if request.key not in self._seen:
            self._seen.add(request.key)
            if found is None:
                self.estimate.add(
                    request, example.model_dump_json(), self.settings.max_tokens, self._price
                )
            else:
                self.estimate.answered += 1
        return example if found is None else found

    def count_text(self, messages: Sequence[Message], example: str) -> None:
        """Count a request for free text, whose reply is about as long as the example."""
        request = request_of(self.settings, messages, None)
        if request.key in self._seen:
            return
        self._seen.add(request.key)
        if self._cache.reply(request.key, 0) is None:
            self.estimate.add(request, example, self.settings.max_tokens, self._price)
        else:
            self.estimate.answered += 1

    def _cached(self, request: Request, schema: type[Form]) -> Form | Failure | None:
        """What the attempts so far led to; None where the next one would be sent."""
        found: Form | Failure | None = None
        for attempt in range(self.settings.attempts):
            reply = self._cache.reply(request.key, attempt)
            found = None if reply is None else read_form(reply, schema)
            if not isinstance(found, Failure):
                break
        return found
