# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and durations: what passes is safe, what is written is read back."""

from __future__ import annotations

import re

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.durations import format_ms, parse_ms
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import migration_key, short_hash, valid_name
from hypothesis import given
from hypothesis import strategies as st


@given(st.text())
def test_no_unsafe_character_passes(text: str) -> None:
    try:
        valid_name(text, "tenant")
    except InputError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)
    assert len(text) <= 63


@pytest.mark.parametrize("value", ["a\n", "a/b", "", None, 5, "ä", "a b", "-a", "a" * 64])
def test_a_bad_name_is_named_in_the_error(value: object) -> None:
    with pytest.raises(InputError, match="migrate_db_from_tenant"):
        valid_name(value, "migrate_db_from_tenant")


def test_key_and_hash() -> None:
    assert migration_key("venezia", "venezia-scp") == "venezia--venezia-scp"
    assert re.fullmatch("[0-9a-f]{8}", short_hash("venezia--venezia-scp"))


@given(st.integers(min_value=1, max_value=10**11))
def test_a_written_duration_is_read_back(value: int) -> None:
    assert parse_ms(format_ms(value), "x") == value


@pytest.mark.parametrize("value", ["20", 20, "-1s", "0s", "1 s", "", "1y", None])
def test_a_bad_duration_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="policy.lease"):
        parse_ms(value, "policy.lease")
