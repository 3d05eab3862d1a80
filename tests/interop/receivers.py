"""Run the receivers of webhooks: the examples of docs/webhooks.md as they stand there, and variants of them.

Each runs in a process of its own, in an environment with the verifiers that others wrote (`requirements.txt`,
`package-lock.json`), which is made once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from okane.local.okane_process import listens
from okane.local.ports import free_port
from okane.local.processes import Child, Stage, server_environment, spawn
from okane.local.server import Server
from okane.local.simulator_environment import SimulatorPackages

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = SimulatorPackages(
    name="webhook-receivers",
    versions=("3.11", "3.12", "3.13", "3.14"),
    requirements=HERE / "requirements.txt",
    edit=HERE / "install_node_packages.py",
    edit_files=(HERE / "package.json", HERE / "package-lock.json"),
)
_STAGES = (Stage(15, 5.0),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The source of a receiver in `python` or `js`. `replaced` are the words in which it differs from its example."""

    name: str
    language: str
    source: str
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        text = self.source
        for old, new in self.replaced.items():
            assert old in text, f"{self.name} differs in {old!r}, which its example no longer has"
            text = text.replace(old, new)
        return text


def example(language: str) -> str:
    """Return the receiver in docs/webhooks.md that is written in this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "docs" / "webhooks.md").read_text(), re.M | re.S)
    [source] = [block for block in found if "WEBHOOK_SECRET" in block]
    return str(source)


_PARSED = "express.json({ verify: (request, _, raw) => { request.raw = raw; } })"  # as docs/webhooks.md has it
FLASK = Program(name="flask-standardwebhooks", language="python", source=example("python"))
EXPRESS = Program(name="express-standardwebhooks", language="js", source=example("js"))
PROGRAMS: Sequence[Program] = (
    FLASK,
    Program(
        name="flask-svix",
        language="python",
        source=FLASK.source,
        replaced={"from standardwebhooks.webhooks": "from svix.webhooks"},
    ),
    EXPRESS,
    Program(name="express-svix", language="js", source=EXPRESS.source, replaced={'"standardwebhooks"': '"svix"'}),
    Program(
        name="express-json",
        language="js",
        source=EXPRESS.source,
        replaced={
            'express.raw({ type: "application/json" })': _PARSED,
            "webhook.verify(request.body,": "webhook.verify(request.raw,",
            "JSON.parse(request.body)": "request.body",
        },
    ),
)


def node(python: Path) -> Path:
    """Return the Node of the environment that `python` is of."""
    return python.with_name("node")


def link_node_modules(python: Path, folder: Path) -> None:
    """Let the programs in `folder` import the packages of the environment: Node looks beside a program for them."""
    link = folder / "node_modules"
    if not link.exists():
        link.symlink_to(python.parents[1] / "receivers" / "node_modules")


class Receiver(Server):
    """A receiver on a loopback port, in a process of its own. Its lines are in `output`."""

    def __init__(self, program: Program, *, folder: Path, secret: str = "") -> None:
        """`secret` may come later, before the start: an endpoint has it after its URL."""
        super().__init__()
        self.secret = secret
        self.name = program.name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._program = program
        self._folder = folder
        self._log = folder / f"{program.name}.log"
        self._probe = listens(self.port)
        self._python: Path | None = None

    @property
    def output(self) -> str:
        return self._log.read_text()

    def prepare(self) -> None:
        """Make the environment if it is missing, which takes a minute."""
        self._python = PACKAGES.prepare()

    def _spawn(self) -> Child:
        assert self._python is not None, "prepare comes first"
        if self._program.language == "python":
            source = self._folder / f"{self.name}.py"
            command: list[str | Path] = [self._python, "-I", source]
        else:
            link_node_modules(self._python, self._folder)
            source = self._folder / f"{self.name}.mjs"
            command = [node(self._python), source]
        source.write_text(self._program.text)
        env = {**server_environment(), "WEBHOOK_SECRET": self.secret, "PORT": str(self.port)}
        return spawn(name=self.name, command=command, log=self._log, stages=_STAGES, env=env)

    def ready(self) -> bool:
        return self._probe()
