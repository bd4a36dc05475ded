# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the options of a MariaDB participant become a connection."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.participant.mariadb.participant import MariaDB


def participant(**options: Any) -> MariaDB:
    return MariaDB({"name": "rating", "database": "rating", "user": "zdm", "password": "p@ss:word/%", **options})


def test_a_socket_wins_over_the_host() -> None:
    url = participant(socket="/run/a b.sock", host="db").url()
    assert (url.host, url.query["unix_socket"], url.password) == (None, "/run/a b.sock", "p@ss:word/%")
    url = participant(host="db", port="3307").url()
    assert (url.host, url.port) == ("db", 3307)
    assert "p@ss" not in repr(url)


def test_tls_always_verifies_the_server() -> None:
    assert "ssl" not in participant().connect_args()
    context = participant(ssl=True).connect_args()["ssl"]
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_missing_ca_file_is_named() -> None:
    with pytest.raises(InputError, match="/nonexistent/ca.pem"):
        participant(ca_file="/nonexistent/ca.pem").connect_args()


@pytest.mark.parametrize("name", ["plain", "select", "with`tick", "with space", "100%"])
def test_quoting(name: str) -> None:
    assert participant().quote(name) == "`" + name.replace("`", "``") + "`"
