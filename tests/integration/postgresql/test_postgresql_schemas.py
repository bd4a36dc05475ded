# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schemas that nobody designed for us: names, keys, collations, views, encodings. Each goes there and back exactly, or
is refused by the plan with what to do.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import ZdmError
from ansible_collections.zdm.landscape.tests.integration.postgresql.pgsite import (
    MIGRATION,
    A,
    B,
    Site,
    make_small_chunks,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_chunks(monkeypatch.setattr, 3)


@pytest.fixture
def bare(site: Site) -> Site:
    """Without the sample's tables."""
    site.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION app", admin=True)
    return site


def there_and_back(site: Site, tables: dict[str, dict[str, Any]], *changes: str) -> None:
    """Stage, let *changes* come with the log, switch there and back; ``{t}`` is the live id."""
    participant = site.staged(tables=tables)
    for live, other, reverse in ((A, B, False), (B, A, True)):
        site.sql(*(change.replace("{t}", live) for change in changes))
        before = participant.fingerprint(live)
        site.switch(participant, reverse)
        assert participant.fingerprint(other) == before
    participant.remove(site.move())


NAMES = (
    *("seq", "zdm", "excluded", "a", "b", "k", "k0", "n", "gone", "l", "d", "j", "user", "position", "new", "old"),
    *("per%cent", "two%%", "%s", "back`tick", "co:lon", ":bind", 'quo"te', "o'clock", "back\\slash", "ümläut", "a b"),
    *("x" * 63, "TG_OP", "tg_argv", "worker"),
)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_columns(bare: Site, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    columns = f"tenant_id text NOT NULL, {quoted} int NOT NULL, v int, PRIMARY KEY (tenant_id, {quoted})"
    bare.sql(f"CREATE TABLE bill ({columns})", f"INSERT INTO bill SELECT '{A}', n, 0 FROM generate_series(1, 10) n")
    there_and_back(bare, {"bill": {"strategy": "twin"}}, "UPDATE bill SET v = v + 1 WHERE tenant_id = '{t}'")


@pytest.mark.parametrize("name", ["zdm_seq", "zdm_to", "zdm_live"])
def test_names_that_are_ours_are_refused_for_twins_only(bare: Site, name: str) -> None:
    bare.sql(
        f"CREATE TABLE bill (tenant_id text NOT NULL, {name} int NOT NULL, PRIMARY KEY (tenant_id, {name}))",
        f"INSERT INTO bill VALUES ('{A}', 1)",
    )
    [refusal] = bare.participant(tables={"bill": {"strategy": "twin"}}).inspect(MIGRATION, A, B).refusals
    assert f"Column {name} of bill has a name that is reserved here" in refusal.reason
    there_and_back(bare, {"bill": {"strategy": "in_place"}})


KEYS = (
    *("plain", "", " ", "o'clock", "back\\slash", "\\'; DROP TABLE victim; --", "'; DROP TABLE victim; --", "%s", "%%"),
    *(":name", "tab\there", "new\nline", "ä€𝄞", "{}", "(1,2)", '"', "NULL", "\\N", "$1"),
)


@pytest.mark.parametrize("strings", ["on", "off"])
def test_values_of_keys_never_become_sql(bare: Site, strings: str) -> None:
    """Also where the database reads backslashes in literals as it did before version 9.1."""
    bare.sql(f"ALTER DATABASE {bare.database} SET standard_conforming_strings = {strings}", admin=True)
    bare.sql(
        "CREATE TABLE victim (id int)", "CREATE TABLE doc (tenant_id text, k text, v int, PRIMARY KEY (tenant_id, k))"
    )
    with bare.connect() as session:
        for key in KEYS:
            session.execute("INSERT INTO doc VALUES (%s, %s, 0)", (A, key))
    tables = {"doc": {"strategy": "twin"}, "victim": {"ignore": "must stay"}}
    there_and_back(bare, tables, "UPDATE doc SET v = v + 1 WHERE tenant_id = '{t}'")
    assert bare.sql("SELECT count(*) FROM victim") == [(0,)]


def test_keys_of_a_nondeterministic_collation(bare: Site) -> None:
    bare.sql(
        "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE login (tenant_id text, name text COLLATE loose, note text COLLATE loose, PRIMARY KEY (tenant_id,"
        " name))",
        f"INSERT INTO login SELECT '{A}', 'User' || n, 'a' FROM generate_series(1, 10) n",
    )
    there_and_back(
        bare,
        {"login": {"strategy": "twin"}},
        "UPDATE login SET name = upper(name), note = 'b' WHERE tenant_id = '{t}' AND name = 'user3'",
        "UPDATE login SET name = lower(name) WHERE tenant_id = '{t}' AND name = 'user4'",
    )


@pytest.mark.parametrize("populated", [True, False])
def test_a_materialised_view_of_the_ids_is_refused_and_can_be_ignored(bare: Site, populated: bool) -> None:
    data = "" if populated else "WITH NO DATA"
    bare.sql(
        "CREATE TABLE bill (tenant_id text NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id))",
        f"INSERT INTO bill VALUES ('{A}', 1)",
        f"CREATE MATERIALIZED VIEW per_tenant AS SELECT tenant_id, count(*) AS n FROM bill GROUP BY 1 {data}",
    )
    [refusal] = bare.participant(tables={}).inspect(MIGRATION, A, B).refusals
    assert refusal.object == "per_tenant"
    assert 'per_tenant: {ignore: "<reason>"}' in refusal.advice
    there_and_back(bare, {"per_tenant": {"ignore": "it is refreshed after each switch"}})


def test_a_database_in_sql_ascii_is_moved(site: Site) -> None:
    name = f"{site.database}_ascii"
    with site.connect(admin=True) as session:
        session.autocommit = True
        session.execute(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 OWNER app"
        )
    ascii_site = Site(site.server, name)
    try:
        ascii_site.sql(
            "CREATE TABLE bill (tenant_id text, id int, v text, PRIMARY KEY (tenant_id, id))",
            f"INSERT INTO bill SELECT '{A}', n, E'\\xfc' FROM generate_series(1, 10) n",
        )
        ascii_site.sql(f"GRANT ALL ON DATABASE {name} TO zdm", admin=True)
        participant = ascii_site.participant(tables={"bill": {"strategy": "twin"}})
        try:
            participant.stage(ascii_site.move(), ascii_site.plan(participant), lambda _entry: None)
            before = participant.fingerprint(A)
            ascii_site.switch(participant)
            assert participant.fingerprint(B) == before
        except ZdmError as error:
            raise AssertionError(error) from error
    finally:
        for participant in ascii_site.opened:
            participant.close()
        with site.connect(admin=True) as session:
            session.autocommit = True
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")
