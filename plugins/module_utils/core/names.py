# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one validator that stands before a tenant's name or id becomes a file name, URL, SQL or router command."""

from __future__ import annotations

import hashlib
import re

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_NAME = re.compile(NAME_PATTERN)


def valid_name(value: object, what: str) -> str:
    """Return *value* when it is a safe tenant name or id (subdomain, ``zid``).

    :param value: what the caller gave.
    :param what: how the value is called in the error, for example ``migrate_db_from_tenant``.
    :raises InputError: when it is no string of the form ``[A-Za-z0-9][A-Za-z0-9._-]{0,62}``.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InputError(
            f"{what} {value!r} is not a valid name.",
            "Use 1 to 63 letters, digits, dots, underscores and hyphens, beginning with a letter or digit.",
        )
    return value


def migration_key(source: str, target: str) -> str:
    """Key of the journal of a migration; never parse it, a subdomain may contain ``--``."""
    return f"{valid_name(source, 'source tenant')}--{valid_name(target, 'target tenant')}"


def short_hash(migration: str) -> str:
    """Eight hexadecimal digits that name the helper objects of a migration in a database."""
    return hashlib.sha256(migration.encode()).hexdigest()[:8]
