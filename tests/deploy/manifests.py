"""The manifests, as the kustomizations list them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.files import DEPLOY, loaded

KUBERNETES = DEPLOY / "kubernetes"
BASE, KEDA = KUBERNETES / "base", KUBERNETES / "keda"
SENTINEL, CLUSTER = KUBERNETES / "sentinel", KUBERNETES / "cluster"
EXAMPLE = KUBERNETES / "overlays" / "example"
Manifest = dict[str, Any]


def manifests(*folders: Path) -> Iterator[Manifest]:
    """Yield the resources that the kustomizations of these folders list."""
    for folder in folders:
        for resource in loaded(folder / "kustomization.yaml").get("resources", []):
            if (folder / resource).is_file():
                yield from yaml.safe_load_all((folder / resource).read_text())


def identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


ALL = {identity(manifest): manifest for manifest in manifests(BASE, KEDA, EXAMPLE)}
BUILT_IN = {known: manifest for known, manifest in ALL.items() if "keda" not in manifest["apiVersion"]}
