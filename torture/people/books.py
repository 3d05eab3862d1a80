"""The look of a person into the books of both providers, before a decision about what needs a review.

None: the books do not settle it yet. Money that is held, or on its way, is left to what comes of it.
"""

from __future__ import annotations

from okane.operation import Operation, OperationStatus
from okane.payment import Payment, Status
from torture.gateway.books import OPEN, read_intents
from torture.history.journals import read_charges, with_captures
from torture.history.operations import read_gateway_moves, read_moves
from torture.system.cluster import Cluster


def outcome_of_payment(cluster: Cluster, payment: Payment) -> Status | None:
    """Return the status that the books give a payment. Blocks while it reads them."""
    name, journal = str(payment.id), cluster.folder.journal
    charges = with_captures(read_charges(journal), read_moves(journal)) if journal.exists() else ()
    own = [one for one in charges if one.payment_id == name]
    intents = [one for one in read_intents(cluster.factory.gateway_journal) if one.payment_id == name]
    if any(one.held for one in own) or any(one.manual or one.status in OPEN for one in intents):
        return None
    charged = [one.amount_minor for one in own if one.captured] + [one.amount for one in intents if one.captured]
    if not charged:
        return Status.FAILED_FINAL
    return Status.SUCCESS if charged == [payment.amount_minor] and payment.provider_ref else None


def outcome_of_operation(cluster: Cluster, operation: Operation) -> OperationStatus | None:
    """Return the status that the books give an operation. Blocks while it reads them."""
    moves = [*read_moves(cluster.folder.journal), *read_gateway_moves(cluster.factory.gateway_journal)]
    own = [one for one in moves if one.made_by == str(operation.id)]
    if not own:
        return OperationStatus.FAILED_FINAL
    return OperationStatus.SUCCESS if own[-1].moved and operation.provider_ref else None
