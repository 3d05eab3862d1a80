"""The operations on webhook endpoints and events, as the OpenAPI document has them."""

from __future__ import annotations

from http import HTTPStatus

from okane.api.contract import problem_codes, webhook_schemas
from okane.api.contract.operations import Body, Operation, SuccessResponse
from okane.api.endpoint_deliveries import DeliveryQuery
from okane.api.events import EventQuery
from okane.api.webhook_requests import (
    ChangeEndpoint,
    CreateEndpoint,
    EnableRequest,
    RecoverRequest,
    RedeliverRequest,
    RotateRequest,
)

ENDPOINTS, EVENTS = "Webhook endpoints", "Events"

_TAKES = (*problem_codes.OF_BODIES, "body_not_an_object", "validation_failed")
_READS = ("too_many_reads",)
_FINDS = ("endpoint_not_found", *_READS)
_CHECKS = ("endpoint_url_refused", "card_number")
_SHOWN = SuccessResponse(
    status=HTTPStatus.OK, means="The endpoint, as it is then.", body=webhook_schemas.EndpointAnswer
)

CREATE_ENDPOINT = Operation(
    name="createEndpoint",
    tag=ENDPOINTS,
    summary="Register a URL that gets the account's events",
    details="Every change of a subscribed type that commits after this answer is sent, in the order of each payment, until "
    "it is answered with a 2xx. A repeated request makes a second endpoint, also for the same URL: an account has up to 16.",
    body=Body(schema=CreateEndpoint, example=webhook_schemas.CREATE),
    responses=(
        SuccessResponse(
            status=HTTPStatus.CREATED,
            means="The endpoint, and the secret that verifies its requests.",
            body=webhook_schemas.EndpointSecret,
            headers=("Location",),
            follows="/endpoint/id",
        ),
    ),
    problems=(*_TAKES, *_CHECKS, "too_many_endpoints", "webhooks_not_configured", "webhooks_busy", *_READS),
)
LIST_ENDPOINTS = Operation(
    name="listEndpoints",
    tag=ENDPOINTS,
    summary="List the endpoints, oldest first",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The endpoints.", body=webhook_schemas.EndpointList),),
    problems=_READS,
)
GET_ENDPOINT = Operation(
    name="getEndpoint",
    tag=ENDPOINTS,
    summary="Show an endpoint and how its deliveries stand",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The endpoint.", body=webhook_schemas.EndpointAnswer),),
    problems=_FINDS,
)
CHANGE_ENDPOINT = Operation(
    name="changeEndpoint",
    tag=ENDPOINTS,
    summary="Change members of an endpoint",
    details="Requests follow it within 3 s. `payload` never changes: an event has the same bytes at each attempt.",
    body=Body(schema=ChangeEndpoint, example={"types": ["payment.*"], "max_in_flight": 16}),
    responses=(_SHOWN,),
    problems=(*_TAKES, *_CHECKS, "endpoint_has_no_url", *_FINDS),
)
DELETE_ENDPOINT = Operation(
    name="deleteEndpoint",
    tag=ENDPOINTS,
    summary="Delete an endpoint",
    details="No request to it begins after this answer. It comes when the dispatcher has confirmed that: at once, as a rule, "
    "and after 10 s if the dispatcher has died. Until then it may be repeated; once the endpoint is gone, a repeat is a 404.",
    responses=(SuccessResponse(status=HTTPStatus.NO_CONTENT, means="It is deleted."),),
    problems=("webhooks_busy", *_FINDS),
)
ROTATE_ENDPOINT = Operation(
    name="rotateEndpoint",
    tag=ENDPOINTS,
    summary="Change to a new secret",
    details="Requests are signed with both secrets for `older_valid_for`, the older one last.",
    body=Body(schema=RotateRequest, example={"older_valid_for": "24h"}, required=False),
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK, means="The endpoint, and its new secret.", body=webhook_schemas.EndpointSecret
        ),
    ),
    problems=(*_TAKES, "webhooks_not_configured", "webhooks_busy", *_FINDS),
)
GET_SECRET = Operation(
    name="getEndpointSecret",
    tag=ENDPOINTS,
    summary="Show the secrets of an endpoint",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The secrets.", body=webhook_schemas.SecretAnswer),),
    problems=("webhooks_not_configured", *_FINDS),
)
TEST_ENDPOINT = Operation(
    name="testEndpoint",
    tag=ENDPOINTS,
    summary="Send a test to an endpoint now",
    details="`webhook_endpoint.test`, signed like every event. It is sent once, also to an endpoint that is disabled.",
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK, means="The endpoint's answer, whatever it is.", body=webhook_schemas.TestAnswer
        ),
    ),
    problems=("endpoint_has_no_url", "webhooks_not_configured", "too_many_tests", *_FINDS),
)
ENABLE_ENDPOINT = Operation(
    name="enableEndpoint",
    tag=ENDPOINTS,
    summary="Resume an endpoint",
    details="It goes on where it stopped, or at the end of the log with `from`.",
    body=Body(schema=EnableRequest, example={"from": "now"}, required=False),
    responses=(_SHOWN,),
    problems=(*_TAKES, *_FINDS),
)
DISABLE_ENDPOINT = Operation(
    name="disableEndpoint",
    tag=ENDPOINTS,
    summary="Pause an endpoint",
    details="Its place in the log is kept. Answered when the dispatcher has stopped, as for a deletion.",
    responses=(_SHOWN,),
    problems=("webhooks_busy", *_FINDS),
)
RECOVER_ENDPOINT = Operation(
    name="recoverEndpoint",
    tag=ENDPOINTS,
    summary="Deliver the events of a time again",
    details="After an outage of the receiver: those that were not delivered, or with `only_failed: false` all of them.",
    body=Body(schema=RecoverRequest, example={"since": "2026-03-01T12:00:00Z", "only_failed": True}),
    responses=(
        SuccessResponse(status=HTTPStatus.ACCEPTED, means="They will be sent.", body=webhook_schemas.Recovering),
    ),
    problems=(*_TAKES, "endpoint_has_no_url", "too_many_recoveries", *_FINDS),
)
LIST_ENDPOINT_DELIVERIES = Operation(
    name="listEndpointDeliveries",
    tag=ENDPOINTS,
    summary="List the deliveries of an endpoint, newest first",
    details="Events that it has yet to get are not among them. With `state` a page looks at 10,000 deliveries, and `after` "
    "says how far it came.",
    query=DeliveryQuery,
    responses=(
        SuccessResponse(status=HTTPStatus.OK, means="A page.", body=webhook_schemas.DeliveryPage, headers=("Link",)),
    ),
    problems=("query_invalid", *_FINDS),
)
LIST_WEBHOOK_EVENTS = Operation(
    name="listWebhookEvents",
    tag=EVENTS,
    summary="List the events of the account, oldest first",
    details="From its first endpoint on, for 30 days unless the server keeps them longer. To follow them, repeat the request "
    "with the `after` of the last answer, and `Prefer: wait=25`. With `endpoint` it takes the scope `webhooks`, too: what is "
    "delivered again to the endpoint's reader ends with the request that has the `after` of its answer.",
    query=EventQuery,
    headers=("Prefer",),
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK,
            means="A page.",
            body=webhook_schemas.WebhookEventPage,
            headers=("Link", "Preference-Applied"),
        ),
    ),
    problems=("query_invalid", *_FINDS),
)
GET_WEBHOOK_EVENT = Operation(
    name="getWebhookEvent",
    tag=EVENTS,
    summary="Show an event as it is sent",
    responses=(SuccessResponse(status=HTTPStatus.OK, means="The body.", body=webhook_schemas.WebhookEvent),),
    problems=("event_not_found", *_READS),
)
LIST_DELIVERIES = Operation(
    name="listDeliveries",
    tag=EVENTS,
    summary="List the deliveries of an event",
    responses=(
        SuccessResponse(
            status=HTTPStatus.OK, means="One for each endpoint that it was sent to.", body=webhook_schemas.DeliveryList
        ),
    ),
    problems=("event_not_found", *_READS),
)
REDELIVER_EVENT = Operation(
    name="redeliverEvent",
    tag=EVENTS,
    summary="Deliver an event to an endpoint again",
    details="Also if it was delivered.",
    body=Body(schema=RedeliverRequest, example={"endpoint": webhook_schemas.ENDPOINT_ID}),
    responses=(SuccessResponse(status=HTTPStatus.ACCEPTED, means="It is due.", body=webhook_schemas.Redelivered),),
    problems=(*_TAKES, "event_not_found", *_FINDS),
)
