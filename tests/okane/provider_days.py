"""A day at the mock provider: journals with charges and operations at chosen times, served by the mock itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

from okane.simulator.journal import Charge
from okane.simulator.operation_journal import OperationEntry
from tests.okane.money_days import Row


@dataclass
class Books:
    """The journals to be."""

    charges: list[Charge] = field(default_factory=list)
    operations: list[OperationEntry] = field(default_factory=list)

    def charge(
        self,
        payment: Row | str,
        at: datetime,
        *,
        amount: int | None = None,
        currency: str | None = None,
        status: str = "captured",
        key: str | None = None,
        ref: str | None = None,
    ) -> str:
        """Add a charge of a payment, with its amount and currency unless others are given; return its name."""
        row = payment if isinstance(payment, Row) else None
        name = ref or (row and row.provider_ref) or f"ch_{uuid4().hex[:12]}"
        self.charges.append(
            Charge(
                key=key or (str(row.id) if row else uuid4().hex),
                payment_id=str(row.id) if row else str(payment),
                amount=amount or (row.amount if row else 100),
                currency=currency or (row.currency if row else "USD"),
                status=status,
                provider_ref=name,
                at=at.isoformat(),
                code="card_declined" if status == "declined" else None,
                capture_before=at.isoformat() if status == "authorized" else None,
            )
        )
        return name

    def operation(
        self,
        row: Row,
        kind: str,
        at: datetime,
        *,
        id_: UUID | None = None,
        amount: int = 10,
        ref: str = "",
        status: str = "succeeded",
        code: str | None = None,
    ) -> None:
        """Add a capture, void or refund of a payment."""
        self.operations.append(
            OperationEntry(
                key=str(id_ or uuid4()),
                kind=kind,
                charge=str(row.id),
                payment_id=str(row.id),
                operation_id=str(id_ or uuid4()),
                amount=amount,
                currency=row.currency,
                status=status,
                provider_ref=ref or f"{kind[:2]}_{uuid4().hex[:12]}",
                at=at.isoformat(),
                code=code,
            )
        )

    def write(self, journal: Path) -> None:
        """Write the files that the mock opens."""
        journal.write_bytes(b"".join(one.to_line() for one in self.charges))
        journal.with_name(f"{journal.name}.operations").write_bytes(b"".join(one.to_line() for one in self.operations))
