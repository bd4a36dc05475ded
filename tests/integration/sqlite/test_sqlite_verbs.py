# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The participant's verbs on a real SQLite file, with and without a write-ahead log."""

from __future__ import annotations

from ansible_collections.zdm.landscape.tests.integration.verb_contract import VerbContract


class TestSQLite(VerbContract):
    kill_every = 4  # each fence is a statement of its own there
    application_trigger = "CREATE TRIGGER app_trigger AFTER UPDATE ON event BEGIN UPDATE bill SET note = 'x'; END"
