# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook written by hand asks of the routers and the store: ``python -m …bench.hand block|map|free
<configuration file>``.

Each call appends a line with the time of its begin and end to the file that the configuration names.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.router.base import HOLD
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter

MIGRATION = "by-hand"


def write_mapping(folder: Path, live: dict[str, str], other: dict[str, str]) -> None:
    """The live account leads to itself, the other one to it."""
    for account, leads_to in ((live, None), (other, live)):
        path = folder / "onboarded-tenants" / f"{account['subdomain']}.json"
        body = {key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("mapTo")}
        if leads_to:
            body |= {"mapToTenant": leads_to["subdomain"], "mapToTenantId": leads_to["id"]}
        path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")


def act(step: str, config: dict[str, Any]) -> None:
    routers = [HAProxyRouter(**options) for options in config["routers"]]
    live, other = config["live"], config["other"]
    ids, epoch = [live["id"], other["id"]], config["epoch"]
    if step == "map":
        write_mapping(Path(config["store"]), live, other)
    for router in routers:
        if step == "block":
            router.take_over(MIGRATION, epoch)
            router.close(MIGRATION, epoch, ids, HOLD)
        elif step == "map":
            router.map(MIGRATION, epoch, {live["id"]: None, other["id"]: live["id"]})
        else:
            router.release(MIGRATION, epoch, ids)


def main() -> None:
    step, config = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    begin = time.time()
    act(step, config)
    with Path(config["events"]).open("a") as events:
        events.write(json.dumps({"step": step, "begin": begin, "end": time.time()}) + "\n")


if __name__ == "__main__":
    main()
