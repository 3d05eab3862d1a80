"""The targets of `python -m bench.webhooks`: those of the issue that asked for webhooks."""

from __future__ import annotations

from bench.targets import Target
from bench.webhook import draining, idling, neighbours, pipeline, requesting, settling

TARGETS = (
    Target(what=settling.none_vs_today(256), letter="a", figure=settling.none_vs_today(256), reach=1.03, moonshot=1.0),
    Target(what=settling.none_vs_today(16), letter="a", figure=settling.none_vs_today(16), reach=1.05, moonshot=1.0),
    Target(what=settling.all_vs_today(256), letter="a", figure=settling.all_vs_today(256), reach=1.10, moonshot=1.05),
    Target(what=settling.all_vs_today(16), letter="a", figure=settling.all_vs_today(16), reach=1.25, moonshot=1.05),
    Target(what=pipeline.NONE_VS_TODAY, letter="b", figure=pipeline.NONE_VS_TODAY, reach=0.98, moonshot=1.0),
    Target(what=pipeline.ALL_VS_TODAY, letter="b", figure=pipeline.ALL_VS_TODAY, reach=0.75, moonshot=0.85),
    Target(what=draining.VS_API, letter="c", figure=draining.VS_API, reach=0.5, moonshot=1.0),
    Target(what=neighbours.P99_RATIO, letter="d", figure=neighbours.P99_RATIO, reach=1.3, moonshot=1.1),
    Target(what="change to request, p50, ms", letter="d", figure=neighbours.P50, reach=50, moonshot=20),
    Target(what=requesting.VS_AIOHTTP, letter="e", figure=requesting.VS_AIOHTTP, reach=0.25, moonshot=0.2),
    Target(what=f"{idling.IDLE}, %", letter="f", figure=idling.IDLE, reach=1.0, moonshot=0.5),
)
