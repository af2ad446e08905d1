"""Options of the commands that ask a paid endpoint: annotate, eval, judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from eval.engines import PaidEndpoint
    from facellava.endpoint import EndpointSettings, Prices

PricesOption = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads the annotation at run time)
    typer.Option(help="JSON or TOML: dollars for 10^6 tokens, by model."),
]
MaxCostOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Dollars that may be spent; needs --prices."),
]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Say what it would cost, and send nothing.")
]
KeyVariableOption = Annotated[
    str, typer.Option("--api-key-env", help="The environment variable that holds the key.")
]
ConcurrencyOption = Annotated[int, typer.Option(help="Requests under way at once.", min=1)]
PerMinuteOption = Annotated[int, typer.Option(help="Requests a minute at most; 0 for any.", min=0)]
PatienceOption = Annotated[float, typer.Option(help="Hours to wait for a silent endpoint.", min=0)]
CacheOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="File of all paid replies; by default beside the results."),
]


def endpoint_settings(
    address: str,
    model: str,
    *,
    api_key_env: str,
    concurrency: int,
    per_minute: int,
    patience: float,
) -> EndpointSettings:
    """A model behind an address, asked as the options say."""
    from facellava.endpoint import EndpointSettings

    return EndpointSettings(
        address,
        model,
        api_key_env=api_key_env,
        concurrency=concurrency,
        requests_per_minute=per_minute or None,
        patience=3600 * patience,
    )


def price_table(path: Path | None) -> Prices:
    """The prices of --prices; none without it."""
    from facellava.endpoint import read_prices

    return read_prices(path) if path else {}


def paid_endpoint(
    beside: Path, cache: Path | None, prices: Path | None, max_cost: float | None, **settings: Any
) -> PaidEndpoint:
    """An endpoint with its replies kept beside a folder of results, unless --cache says where.

    Args:
        beside: the folder.
        settings: the arguments of :func:`endpoint_settings`.
    """
    from eval.engines import PaidEndpoint

    kept = cache or beside.with_name(f"{beside.resolve().name}.replies.sqlite")
    return PaidEndpoint(endpoint_settings(**settings), kept, price_table(prices), max_cost)
