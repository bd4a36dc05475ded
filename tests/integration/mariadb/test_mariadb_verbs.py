# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The participant's verbs on a real MariaDB."""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.integration.verb_contract import VerbContract


class TestMariaDB(VerbContract):
    kill_every = 2
    application_trigger = "CREATE TRIGGER app_trigger BEFORE UPDATE ON event FOR EACH ROW SET NEW.txt = 'x'"
