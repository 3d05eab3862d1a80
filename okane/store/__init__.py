"""The truth: everything okane knows is written to and read from Postgres here, and nothing else speaks SQL."""

from okane.payment import NewPayment
from okane.store.api_keys import ApiKeyStore, StoredKey
from okane.store.dead_letters import DeadLetterStore, DeadPayment, DeadWanted
from okane.store.lists import Page, PaymentLists, PaymentWatch, Wanted
from okane.store.off_path import Decision
from okane.store.overview import Overview
from okane.store.payments import PaymentStore
from okane.store.records import (
    API,
    OPERATOR,
    Accepted,
    Attempt,
    Call,
    Claimed,
    Event,
    LateLookUp,
    Refused,
    Settlement,
)
from okane.store.review import ReviewStore
from okane.store.sweep import SweepStore, WakeUp

__all__ = [
    "API",
    "OPERATOR",
    "Accepted",
    "ApiKeyStore",
    "Attempt",
    "Call",
    "Claimed",
    "DeadLetterStore",
    "DeadPayment",
    "DeadWanted",
    "Decision",
    "Event",
    "LateLookUp",
    "NewPayment",
    "Overview",
    "Page",
    "PaymentLists",
    "PaymentStore",
    "PaymentWatch",
    "Refused",
    "ReviewStore",
    "Settlement",
    "StoredKey",
    "SweepStore",
    "WakeUp",
    "Wanted",
]
