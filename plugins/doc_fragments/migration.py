# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group MIGRATION."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  source:
    description: Subdomain of the migration's source, whose data moves.
    type: str
    required: true
  target:
    description: Subdomain of the migration's target, whose id the data gets.
    type: str
    required: true
"""
