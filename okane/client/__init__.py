"""A client of the HTTP API: it creates a payment once however often it repeats a request, and raises an error per `code`."""

from okane.client.client import RETRIES, Client, DeadFilter, Filter, NewPayment
from okane.client.errors import AccessDenied, ClientError, Conflict, Invalid, KeyReused, NoAnswer, NotFound, Refused
from okane.client.values import Attempt, Currency, DeadLetter, Event, NextAction, Payment, Receipt, Replayed

__all__ = [
    "RETRIES",
    "AccessDenied",
    "Attempt",
    "Client",
    "ClientError",
    "Conflict",
    "Currency",
    "DeadFilter",
    "DeadLetter",
    "Event",
    "Filter",
    "Invalid",
    "KeyReused",
    "NewPayment",
    "NextAction",
    "NoAnswer",
    "NotFound",
    "Payment",
    "Receipt",
    "Refused",
    "Replayed",
]
