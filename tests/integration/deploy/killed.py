# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the engine in processes that may be killed.

Reads lines of JSON, the arguments of a run. For each it forks, writes the child's number, waits for another line, lets
the child run, and writes its exit status; so no run pays for starting Python.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import opened_archive
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.deployment import Deployment
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import wanted
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore


def run(given: dict[str, Any]) -> int:
    try:
        with opened_archive(given["params"]["archive"]) as archive:
            request = wanted(given["params"], archive, [])
            Deployment(CloudFoundry(given["options"]), FileStore(given["store"]), request, lambda _entry: None).run()
    except ZdmError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main() -> None:
    while line := sys.stdin.readline():
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(reader, 1)
            os._exit(run(json.loads(line)))
        print(child, flush=True)
        sys.stdin.readline()
        os.write(writer, b"!")
        _pid, status = os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        print(status, flush=True)


if __name__ == "__main__":
    main()
