# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way of a schema: migrate, reverse, migrate, finalize; with rows and ``pg_dump -s`` compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.participant.base import Refusal
from ansible_collections.zdm.landscape.plugins.module_utils.participant.postgresql.participant import PostgreSQL
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import MIGRATION, A, B, Site

Rows = dict[str, list[str]]

_TABLES = (
    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE"
    " c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'zdm' AND n.nspname !~ '^(pg_|information_)'"
)


def empty(site: Site, *statements: str) -> Site:
    """The site without the sample's tables, with others."""
    site.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION app", admin=True)
    site.sql(*statements)
    return site


def dump(site: Site) -> str:
    """``pg_dump -s``, without what differs from call to call."""
    found = shutil.which("pg_dump")
    if not found:
        pytest.fail("pg_dump is not installed: apt-get install postgresql-client")
    admin = site.server.admin
    where = ["-h", "127.0.0.1", "-p", str(site.server.port), "-U", admin.user]
    done = subprocess.run(
        [found, "-s", *where, site.database],
        env={**os.environ, "PGPASSWORD": admin.password},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", done.stdout)


def rows(site: Site, tenant: str = "") -> Rows:
    """All rows as text by table, or those that hold an id."""
    tables = [name for (name,) in site.sql(_TABLES, admin=True)]
    found = {name: [text for (text,) in site.sql(f"SELECT t::text FROM {name} t", admin=True)] for name in tables}
    return {name: sorted(text for text in texts if tenant in text) for name, texts in found.items()}


def under(found: Rows, old: str, new: str) -> Rows:
    """The same rows with one id for another."""
    return {name: sorted(text.replace(old, new) for text in texts) for name, texts in found.items()}


def go(site: Site, participant: PostgreSQL, reverse: bool = False) -> None:
    """A window, after which the live rows stand under the other id."""
    live, other = (B, A) if reverse else (A, B)
    before = rows(site, live)
    site.switch(participant, reverse)
    assert rows(site, other) == under(before, live, other)
    found = site.status(participant)
    assert (found.state, found.live_id, found.problems, found.unready) == ("staged", other, (), ())


def whole_way(site: Site, *changes: str, **options: Any) -> PostgreSQL:
    """Migrate, reverse, migrate, finalize; nothing but the tenant's id is another in the end.

    :param changes: statements of the application before each window; ``{t}`` is the live id.
    """
    structure, others = dump(site), rows(site)
    participant = site.staged(**options)
    for reverse in (False, True, False):
        site.sql(*(change.replace("{t}", B if reverse else A) for change in changes))
        go(site, participant, reverse)
    live = rows(site, B)
    participant.remove(site.move(reverse=True))
    assert dump(site) == structure
    assert not any(rows(site, A).values())
    assert rows(site, B) == live
    if not changes:
        assert rows(site) == under(others, A, B)
    return participant


def refusals(site: Site, **options: Any) -> list[Refusal]:
    """What the plan refuses; other tables stay out of it."""
    return list(site.participant(**options).inspect(MIGRATION, A, B).refusals)
