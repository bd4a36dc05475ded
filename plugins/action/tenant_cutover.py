# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of the module tenant_cutover while it runs."""

from __future__ import annotations

from ansible_collections.zdm.landscape.plugins.plugin_utils.live import LiveAction


class ActionModule(LiveAction):
    """See :class:`LiveAction`."""
