# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group ARCHIVE."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  archive_checksum:
    description: What the archive must be, as algorithm, colon and digest, for example V(sha256:0a1b…). Another one is
      refused before anything is done with it.
    type: str
  archive_source:
    description: Where O(archive) comes from when it is a copy, as documents and results name it; a path or a URL.
    type: str
  archive_headers:
    description: Headers for the request when O(archive) is a URL.
    type: dict
  archive_username:
    description: User for O(archive) when it is a URL.
    type: str
  archive_password:
    description: Password of O(archive_username).
    type: str
  archive_ca_file:
    description: PEM file with the certificate authority of O(archive) when it is a URL; the host's own by default.
    type: path
"""
