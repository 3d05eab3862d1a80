"""The body of `POST /v1/payments/{id}/resolve`, and of refunds: the decision about one that needs a review."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from okane.payment import MAX_REASON, Status
from okane.store import Decision

MAX_REF = 255
MAX_VERSION = 2**31 - 1


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _text(length: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": length, "pattern": r"\S"})


class ResolveRequest(BaseModel):
    """The body of `POST /v1/payments/{id}/resolve` and `POST /v1/refunds/{id}/resolve`."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "if": {"properties": {"as": {"const": "failed_final"}}},
            "then": {"properties": {"provider_ref": {"type": "null"}}},
        },
    )

    decision: Annotated[Literal["success", "failed_final"], Field(alias="as", description="what it becomes")]
    reason: Annotated[
        str,
        Field(max_length=MAX_REASON, description="why: kept in the history of the payment, or of the refund"),
        AfterValidator(_said),
        _text(MAX_REASON),
    ]
    provider_ref: Annotated[
        Annotated[str, Field(max_length=MAX_REF), AfterValidator(_said), _text(MAX_REF)] | None,
        Field(description="the provider's name for the charge, or the refund, that was found; with success only"),
    ] = None
    version: Annotated[
        Annotated[int, Field(ge=0, le=MAX_VERSION)] | None,
        Field(description="the version that was seen, the number in the `ETag`: 409 if it has changed since"),
    ] = None

    @property
    def status(self) -> Decision:
        """The status that the payment will have."""
        return Status.SUCCESS if self.decision == "success" else Status.FAILED_FINAL

    @model_validator(mode="after")
    def _charge_of_a_success(self) -> Self:
        if self.provider_ref is not None and self.decision != "success":
            raise ValueError("provider_ref goes with success only")
        return self
