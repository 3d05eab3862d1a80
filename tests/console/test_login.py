"""Log-in, sessions and log-out."""

from __future__ import annotations

import pytest

from okane.api_key import Scope
from tests.console.served_console import Console, text_of

EVIL = [
    "//evil.example",
    "https://evil.example/console/",
    "/\\evil.example",
    "\\\\evil.example",
    "/console",
    "/consolee/x",
    "/console/../x",
    "/console/\n",
    "javascript:alert(1)",
    "/console/é",
    "http:/console/",
    "///console/",
    "/console/%2e%2e/x",
]


async def test_without_a_session_a_page_leads_to_the_log_in_and_back(console: Console) -> None:
    browser = await console.browser()
    refused = await browser.get("/payments?q=abc&status=pending")
    assert (refused.status, refused.location) == (
        303,
        "/console/login?next=%2Fconsole%2Fpayments%3Fq%3Dabc%26status%3Dpending",
    )
    page = await browser.get(refused.location)
    assert 'value="/console/payments?q=abc&amp;status=pending"' in page.text
    entered = await browser.log_in(await console.key(), "/console/payments?q=abc&status=pending")
    assert (entered.status, entered.location) == (303, "/console/payments?q=abc&status=pending")


@pytest.mark.parametrize("wanted", EVIL)
async def test_next_is_always_a_path_of_the_console(console: Console, wanted: str) -> None:
    browser = await console.browser()
    entered = await browser.log_in(await console.key(Scope.SYSTEM), wanted)
    assert (entered.status, entered.location) == (303, "/console/")


async def test_a_key_that_does_not_exist_gets_no_session(console: Console) -> None:
    browser = await console.browser()
    refused = await browser.log_in(f"sk_test_{'a' * 12}_{'0' * 64}")
    assert refused.status == 401
    assert "There is no such API key." in text_of(refused.text)
    assert browser.cookies == {}
