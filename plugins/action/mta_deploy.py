# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the messages of the operation while the module mta_deploy runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.zdm.landscape.plugins.module_utils.core.options import LOG_DIR
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.log import deployments_log, shown
from ansible_collections.zdm.landscape.plugins.plugin_utils.live import LiveAction


class ActionModule(LiveAction):
    """See :class:`LiveAction`."""

    line = staticmethod(shown)

    def log_of(self, args: dict[str, Any]) -> Path | None:
        return deployments_log(str(args.get("log_dir") or LOG_DIR))
