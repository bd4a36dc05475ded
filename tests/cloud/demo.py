# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``./demo deploy``: a new version of the sample application goes live blue-green while users work, and a bad one does
not.
"""

from __future__ import annotations

import json
import platform
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from ..landscape import debian
from ..landscape.processes import ServerError
from ..landscape.terminal import FOLDER, clear, shown, step
from .demo_report import BAD, FIRST, NEXT, Outcome, summary
from .incidents import SRV
from .node import ensure_node
from .platform import PAGE, TENANTS, USERS, VISITOR, Platform, Played
from .playbook_output import showing
from .users import Users

PLACE = FOLDER / "deploy"
RESULT = FOLDER / "deploy.json"
SESSIONS = 2
"""Sessions of each user."""
ANSWERS = 4
"""That many requests of every user a version must answer before it is replaced, and after it has come."""
_PARTS = """\
    real:      @sap/approuter {approuter} (two at a time, sessions in Redis), CAP MTX sidecar {cds-mtxs} over SQLite,
               redis-server
    stand-ins: Cloud Foundry and its gorouter, the MultiApps deploy service, XSUAA, saas-registry,
               the application's service"""


class Demo:
    """The demo's steps; each says what it does and how long it took."""

    def __init__(self, there: Platform) -> None:
        self._platform = there
        self._states: dict[str, list[str]] = {}
        self._seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        there = self._platform
        with step(f"ansible-playbook zdm.landscape.deploy: version {FIRST}, the first deployment"):
            self._deploy(FIRST)
        with step(f"Subscribe the tenants {', '.join(TENANTS)}"):
            there.subscribe()
        browsers = [there.browser(user) for user in USERS[:-1] for _session in range(SESSIONS)]
        with Users(browsers, PAGE, [there.browser(VISITOR)]) as users:
            with step(f"{len(browsers)} users log in, then read and change all the time"):
                users.wait_answers(FIRST, ANSWERS)
            with step(f"ansible-playbook zdm.landscape.deploy: version {NEXT}, while they work"):
                self._deploy(NEXT)
            with step(f"They go on with version {NEXT}"):
                users.wait_answers(NEXT, ANSWERS)
            checks = there.deploy_options()["checks"]
            there.configure(checks=[*checks, {**checks[0], "assert": "status == 'UP'", "retries": 1}])
            with step(
                f"ansible-playbook zdm.landscape.deploy: version {BAD}, which fails its smoke test ({SRV} does not say"
                " status == 'UP')"
            ):
                self._deploy(BAD, succeeds=False)
            with step(f"They go on with version {NEXT}"):
                users.wait_answers(NEXT, ANSWERS)
        return Outcome(
            users.requests, users.failures, users.lost_sessions, len(browsers), users.slowest_ms, users.answered,
            there.upgraded(), self._states, self._seconds, versions(),
        )  # fmt: skip

    def _deploy(self, wanted: str, *, succeeds: bool = True) -> None:
        """Run the playbook as an operator does.

        :raises ServerError: it ends otherwise than it should; with the end of its output.
        """
        operations, begin = self._platform.cloud.controller.operations, time.monotonic()
        before = set(operations)
        played = self._play(self._platform.archive(wanted))
        self._seconds[wanted] = round(time.monotonic() - begin, 1)
        self._states[wanted] = [
            state for identity, operation in operations.items() if identity not in before for state in operation.states
        ]
        if (played.code == 0) is not succeeds:
            raise ServerError(
                f"zdm.landscape.deploy of version {wanted} ended with code {played.code}:\n{played.output[-4000:]}"
            )

    def _play(self, archive: Path) -> Played:
        process = self._platform.begin(archive)
        with showing(process.log):
            return self._platform.end(process)


def show(folder: Path) -> bool:
    """The demo in a folder of its own; says whether all went well.

    :raises ServerError: programs are missing, or a part does not start.
    """
    with step("Look for Node.js, its packages and redis-server; install what is missing"):
        require_programs()
    with ExitStack() as stack:
        with step("Start the platform"):
            print(_PARTS.format_map(versions()), flush=True)
            there = stack.enter_context(Platform(folder))
        outcome = Demo(there).run()
    RESULT.write_text(json.dumps(outcome.as_dict(), indent=2) + "\n")
    print(summary(outcome))
    print(f"All figures: {shown(RESULT)}.")
    return outcome.ok


def clean() -> None:
    """Remove the data of the last run."""
    clear(PLACE, RESULT, PLACE)


def require_programs() -> None:
    """Install what can be installed.

    :raises ServerError: something is missing; it names all of it and Debian's packages.
    """
    problems = []
    lacking = debian.install(["redis-server", "npm"])
    if lacking:
        problems.append(f"{debian.advice(lacking)}.")
    try:
        ensure_node()
    except ServerError as error:
        problems.append(str(error))
    if problems:
        raise ServerError("\n".join(problems))


def versions() -> dict[str, str]:
    """Of what is real in the demo."""
    modules = ensure_node().modules / "@sap"
    packages = {
        name: str(json.loads((modules / name / "package.json").read_text())["version"])
        for name in ("approuter", "cds-mtxs")
    }
    return {"python": platform.python_version(), "ansible-core": version("ansible-core"), **packages}
