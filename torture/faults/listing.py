"""The list of faults, with those that this machine does not support: `okane torture --list-faults`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from torture.faults import FAULTS


def why_impossible(names: Iterable[str]) -> Mapping[str, str]:
    """Return the faults that this machine does not support, with the reasons."""
    reasons = {name: FAULTS[name].why_not() for name in names}
    return {name: why for name, why in reasons.items() if why is not None}


def listed(*, as_json: bool) -> str:
    """Return the list of all faults as text or JSON."""
    impossible = why_impossible(FAULTS)
    if as_json:
        about = [
            {"name": one.name, "meaning": one.meaning, "needs": one.needs or None, "impossible": impossible.get(name)}
            for name, one in FAULTS.items()
        ]
        return json.dumps(about)
    lines = []
    for name, fault in FAULTS.items():
        needs = f" [needs {fault.needs}{': not here, ' + impossible[name] if name in impossible else ''}]"
        lines.append(f"{name:<32}{fault.meaning}{needs if fault.needs else ''}")
    return "\n".join(lines)
