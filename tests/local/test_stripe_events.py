"""The events of the local Stripe are those that the set-up in docs/providers.md subscribes to."""

from __future__ import annotations

import re
from pathlib import Path

from okane.local.stripe_simulator.webhook_sender import KINDS

DOCUMENT = Path(__file__).parents[2] / "docs" / "providers.md"


def test_the_local_stripe_sends_the_events_of_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    step = text[text.index("3. **Notices.**") : text.index("4. **Start:**")]
    assert set(re.findall(r"`((?:payment_intent|charge|refund)\.[a-z_.]+)`", step)) == KINDS
