"""Requests made from our own OpenAPI document, good and bad ones, with schemathesis's checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from tests.serve.abuse_rig import FakeServer, fake_server

EXAMPLES = 40


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server(max_body_bytes=2**22) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: FakeServer) -> Any:
    return schemathesis.openapi.from_url(f"{server.base}/openapi.json")


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_route_keeps_its_word(case: schemathesis.Case) -> None:
    case.call_and_validate(timeout=30)


def test_the_server_is_well_after_it_all(server: FakeServer) -> None:
    assert server.is_well()
