# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Other ways to write a tenant's id, as databases keep it."""

from __future__ import annotations

import re

from ansible_collections.zdm.landscape.plugins.module_utils.participant.own_ids import is_binary, is_numeric

AS_IT_IS = ""
BYTES = "as bytes"
_UUID = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE)
_TEXT = re.compile(
    r"(n?(var)?char|character|(tiny|medium|long)?text|citext|clob|string|name\b|null\b|$)", re.IGNORECASE
)
_LENGTH = re.compile(r"\w[\w ]*\((\d+)\)")


def spellings(tenant_id: str) -> dict[str, str]:
    """An id by the way in which it is written; the first is the id itself.

    >>> spellings("0A-b")
    {'': '0A-b', 'in lower case': '0a-b', 'in upper case': '0A-B', 'as the bytes of its characters': '0x30412d62'}
    """
    ways = {AS_IT_IS: tenant_id, "in lower case": tenant_id.lower(), "in upper case": tenant_id.upper()}
    if _UUID.fullmatch(tenant_id):
        digits = tenant_id.replace("-", "")
        ways["without hyphens"] = digits
        ways["in upper case without hyphens"] = digits.upper()
        ways["with hyphens"] = "-".join(
            digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
        )
        ways[BYTES] = f"0x{digits.lower()}"
    ways["as the bytes of its characters"] = f"0x{tenant_id.encode().hex()}"
    seen: dict[str, str] = {}
    for way, text in ways.items():
        if text not in seen.values():
            seen[way] = text
    return seen


def fitting(kind: str, tenant_id: str) -> dict[str, str]:
    """The spellings that a column of a type can hold; none for types that hold no id.

    :param kind: as the engine writes it.
    """
    kind = kind.strip()
    found = spellings(tenant_id)
    if is_numeric(kind):
        return {AS_IT_IS: tenant_id} if tenant_id.isdecimal() else {}
    if is_binary(kind):
        return {way: text for way, text in found.items() if text.startswith("0x")}
    if kind.lower().startswith("uuid"):
        return {AS_IT_IS: tenant_id} if _UUID.fullmatch(tenant_id) else {}
    if not _TEXT.match(kind) or kind.endswith("]"):
        return {}
    length = _LENGTH.match(kind)
    most = int(length[1]) if length else len(tenant_id)
    return {way: text for way, text in found.items() if len(text) <= most and not text.startswith("0x")}


def is_text(kind: str) -> bool:
    """Whether a column type holds text, or JSON."""
    return _TEXT.match(kind.strip()) is not None or kind.strip().lower().startswith("json")


def family(kind: str) -> str:
    """What a column type holds, so that a key and a reference to it can be compared."""
    kind = kind.strip()
    if is_numeric(kind):
        return "numbers"
    if is_binary(kind):
        return "bytes"
    return "uuid" if kind.lower().startswith("uuid") else "text" if _TEXT.match(kind) else kind
