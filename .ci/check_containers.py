"""Replay what the image's build does in a new environment, and ask the server that it makes by curl.

    python .ci/check_containers.py

No image is built: there may be no container engine. The compose file is compared with its schema by the tests.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "examples" / "containers"
PLACES = ("/opt/embrief", "/opt/models", "/run/secrets")
# Of another user and of the root folder: for whoever builds an image.
SKIPPED = ("groupadd",)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile: what, and the rest."""
    text = re.sub(r"\\\n\s*", " ", (FOLDER / "Dockerfile").read_text("utf-8"))
    found = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(what, rest) for what, rest in found]


def placed(text: str, folder: Path) -> str:
    for place in PLACES:
        text = text.replace(place, f"{folder}{place}")
    return text


def replay(folder: Path) -> None:
    """Run the RUN lines, with the defaults of the ARG lines, in the place of `/`."""
    env = dict(os.environ)
    for what, rest in instructions():
        if what == "ARG":
            name, _, value = rest.partition("=")
            env[name] = value.strip('"')
        elif what == "ENV" and "HF_HOME=/opt" in rest:
            env["HF_HOME"] = placed(rest.partition("=")[2], folder)
        elif what == "RUN" and not rest.startswith(SKIPPED):
            command = placed(rest, folder).replace("--no-cache-dir ", "")
            if command.startswith("python "):
                command = f'"{sys.executable}" {command.removeprefix("python ")}'
            print(f"RUN {rest[:100]}", flush=True)
            subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, env=env, check=True)


def command(folder: Path, port: int) -> list[str]:
    """Return what the image starts, at another port of this machine alone."""
    parts = {what: json.loads(rest) for what, rest in instructions() if what in ("ENTRYPOINT", "CMD")}
    words = [placed(word, folder) for word in (*parts["ENTRYPOINT"], *parts["CMD"])]
    words[words.index("--host") + 1] = "127.0.0.1"
    words[words.index("--port") + 1] = str(port)
    return [f"{folder}/opt/embrief/bin/embrief", *words[1:]]


def main() -> int:
    if os.name == "nt" or shutil.which("curl") is None:
        print("skipped: this needs a POSIX shell and curl")
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run/secrets").mkdir(parents=True)
        key = secrets.token_hex(32)
        (folder / "run/secrets/embrief_keys").write_text(f"{key}\n", "utf-8")
        replay(folder)
        # A read-only root: what is written goes to these two.
        env = {
            **os.environ,
            "XDG_DATA_HOME": f"{place}/data",
            "XDG_CACHE_HOME": f"{place}/tmp",
            "HOME": f"{place}/home",
        }
        port = 18642
        with subprocess.Popen(command(folder, port), env=env, cwd=place) as server:
            try:
                url = f"http://127.0.0.1:{port}"
                return subprocess.run(["sh", str(FOLDER / "check.sh"), url, key], timeout=300, check=False).returncode
            finally:
                server.terminate()
                server.wait(60)


if __name__ == "__main__":
    sys.exit(main())
