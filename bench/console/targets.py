"""The targets of `python -m bench.console`."""

from __future__ import annotations

from bench.console import idling, loading, many_payments, rendering_cost, settling
from bench.targets import Target

TARGETS = (
    Target(what="first load, gzip, kB", letter="a", figure=loading.LARGEST, reach=15, moonshot=10),
    *(
        Target(
            what=f"CPU of the {name} page, ms", letter="b", figure=rendering_cost.page(name), reach=reach, moonshot=best
        )
        for name, reach, best in (("overview", 4, 2), ("list", 4, 2), ("payment", 2, 1))
    ),
    *(
        Target(what=f"tabs on {name}, console, %", letter="c", figure=idling.console_cpu(name), reach=5, moonshot=2.5)
        for name in idling.KINDS
    ),
    *(
        Target(what=f"tabs on {name}, Postgres, %", letter="c", figure=idling.postgres_cpu(name), reach=1, moonshot=0.5)
        for name in idling.KINDS
    ),
    Target(what=settling.OVERVIEW_VS_NONE, letter="d", figure=settling.OVERVIEW_VS_NONE, reach=0.98, moonshot=1.0),
    Target(what=settling.MIXED_VS_NONE, letter="d", figure=settling.MIXED_VS_NONE, reach=0.98, moonshot=1.0),
    Target(what="any page, p99, ms", letter="e", figure=many_payments.SLOWEST, reach=100, moonshot=25),
    Target(what="bounded searches, p99, ms", letter="e", figure=many_payments.SLOWEST_SEARCH, reach=1000, moonshot=250),
)
