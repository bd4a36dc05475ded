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
  log_dir:
    description:
      - Folder of the audit logs on the controller, one file C(<source>--<target>.jsonl) per migration. It is made with
        mode C(0700), its files with C(0600).
      - Lines are appended and never removed; each says who did what, when and from which host. No line holds a secret.
      - Nothing begins when the log can't be written. Once a window is closed the log can't stop it any more.
    type: path
    default: ~/.local/state/zdm.landscape
"""
