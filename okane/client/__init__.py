"""A client of the HTTP API: it creates a payment once however often it repeats a request, and raises an error per `code`."""

from okane.client.client import Client, DeadFilter, Filter, NewPayment
from okane.client.errors import (
    AccessDenied,
    ClientError,
    Conflict,
    Invalid,
    InvalidSignature,
    KeyReused,
    NoAnswer,
    NotFound,
    Refused,
)
from okane.client.payment_methods import NewPaymentMethod, PaymentMethod, PaymentMethods
from okane.client.signatures import verify
from okane.client.transport import RETRIES
from okane.client.values import Attempt, Currency, DeadLetter, Event, NextAction, Payment, Receipt, Replayed
from okane.client.webhook_values import (
    CreatedEndpoint,
    Delivery,
    DeliveryAttempt,
    DeliveryPage,
    DisputeSnapshot,
    Endpoint,
    EndpointSecrets,
    EventPage,
    OperationSnapshot,
    PaymentSnapshot,
    TestAnswer,
    WebhookEvent,
)
from okane.client.webhooks import EndpointChange, NewEndpoint, Webhooks

__all__ = [
    "RETRIES",
    "AccessDenied",
    "Attempt",
    "Client",
    "ClientError",
    "Conflict",
    "CreatedEndpoint",
    "Currency",
    "DeadFilter",
    "DeadLetter",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryPage",
    "DisputeSnapshot",
    "Endpoint",
    "EndpointChange",
    "EndpointSecrets",
    "Event",
    "EventPage",
    "Filter",
    "Invalid",
    "InvalidSignature",
    "KeyReused",
    "NewEndpoint",
    "NewPayment",
    "NewPaymentMethod",
    "NextAction",
    "NoAnswer",
    "NotFound",
    "OperationSnapshot",
    "Payment",
    "PaymentMethod",
    "PaymentMethods",
    "PaymentSnapshot",
    "Receipt",
    "Refused",
    "Replayed",
    "TestAnswer",
    "WebhookEvent",
    "Webhooks",
    "verify",
]
