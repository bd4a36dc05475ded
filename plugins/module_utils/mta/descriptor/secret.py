# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secret of session cookies: the extension descriptor that brings it, and texts in which nobody sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import (
    PARAMETER,
    SECRET_LENGTH,
    VARIABLE,
    Environment,
)
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

MASK = "********"
_UNMISTAKABLE = 12
"""A secret of so many characters is masked wherever it occurs; a shorter one may be a part of other words."""
_KEY = re.compile(r"""sessionSecret(?:\\?["']{1,2})?[ \t]*:\s*""")
_QUOTED = re.compile(
    r"""\\"(?P<escaped>(?:\\{4}|\\{3}"|(?!\\")[^\n])*)(?P<escaped_end>\\")?"""
    r"""|(?P<quote>"|''|')(?P<plain>(?:(?!(?P=quote))(?:\\[^\n]|[^\n]))*)(?P<plain_end>(?P=quote))?"""
)
"""A string in JSON inside YAML, to its end or that of the line: in quotes that YAML escapes, or in others."""
_REST = re.compile(r"[^\r\n]*")

Span = tuple[int, int]


def extension(
    mta_id: str,
    schema_version: str,
    modules: Sequence[str],
    secret: str,
    parameter: str = PARAMETER,
    extension_id: str = "",
) -> str:
    """An extension descriptor that gives application routers their session secret.

    :param mta_id: id of the MTA, or of the extension before it.
    :param schema_version: the descriptor's.
    :param modules: names of the application routers.
    :param extension_id: the extension's own id; default ``<mta_id>-session``.
    :raises InputError: the secret is too short or has characters that JSON or placeholders would change; it is never
        shown.
    """
    check_secret(secret)
    own_id = extension_id or f"{mta_id}-session"
    for what, name in (
        ("id of the MTA", mta_id),
        ("parameter", parameter),
        ("id of the extension", own_id),
        *(("module", name) for name in modules),
    ):
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise InputError(f"The {what} {name!r} is not a name.", "Take it from the descriptor.")
    if not modules:
        raise InputError(
            "No module is named that needs the session secret.", "Name the application routers of the descriptor."
        )
    if not re.fullmatch(r"\d+(\.\d+){0,2}", str(schema_version)):
        raise InputError(
            f"The schema version {schema_version!r} is not a version.", "Take _schema-version of the descriptor."
        )
    lines = [
        f"_schema-version: {json.dumps(str(schema_version))}",
        f"ID: {json.dumps(own_id)}",
        f"extends: {json.dumps(mta_id)}",
        "modules:",
    ]
    for name in modules:
        lines += [
            f"  - name: {json.dumps(name)}",
            "    parameters:",
            f"      {json.dumps(parameter)}: {json.dumps(secret, ensure_ascii=False)}",
        ]
    return "\n".join(lines) + "\n"


def check_secret(secret: object) -> None:
    """Refuse a secret that is too short, or that would not arrive as it is; the message never shows it.

    :raises InputError: see above.
    """
    advice = (
        f"Generate one of {SECRET_LENGTH} or more letters and digits, keep it in a vault, and never change it from one"
        " deployment to the next."
    )
    if not isinstance(secret, str):
        raise InputError("The session secret is not a string.", advice)
    if len(secret) < SECRET_LENGTH:
        raise InputError(f"The session secret has {len(secret)} characters, fewer than {SECRET_LENGTH}.", advice)
    if any(mark in secret for mark in ('"', "\\", "${", "~{")) or not secret.isprintable():
        raise InputError(
            'The session secret has a character that JSON or the deploy service would change (", \\, ${, ~{ or a'
            " control character).",
            advice,
        )


def masked(descriptor: Descriptor, text: str) -> str:
    """The text of the descriptor, or of an extension of it, without session secrets: where the descriptor has them, in
    comments, and in JSON that does not parse. Placeholders stay.
    """
    variables = [value for value in _variables(descriptor) if value.source.text == text]
    known = [_extent(value) for value in variables]
    spans = [span for value in variables for span in _in_variable(value)]
    for span, _closed in _after_key(text, 0, len(text)):
        if not any(start <= span[0] < end for start, end in known):
            spans.append(span)
    names = _parameter_names(descriptor)
    secrets = [value for value in _parameters(descriptor, names) if not PLACEHOLDER.fullmatch(value.text)]
    spans += [_inner(value, value.text) for value in secrets if value.source.text == text]
    for name in names:
        comment = re.compile(rf"""#[^\r\n]*?\b{re.escape(name)}["']?[ \t]*:[ \t]*([^\r\n]*[^\s])""")
        spans += [match.span(1) for match in comment.finditer(text) if not PLACEHOLDER.search(match[1])]
    for start, end in sorted(_merged(spans), reverse=True):
        text = text[:start] + MASK + text[end:]
    written = [value.text or str(value.data) for value in secrets] + list(_written(descriptor))
    for secret in sorted(written, key=len, reverse=True):
        text = text.replace(secret, MASK) if len(secret) >= _UNMISTAKABLE else text
    return text


def _variables(descriptor: Descriptor) -> Iterator[Value]:
    """Where the variables of application routers are written."""
    for module in descriptor.modules.values():
        value = module.get("properties", VARIABLE)
        if value is not None:
            yield value.written


def _written(descriptor: Descriptor) -> Iterator[str]:
    """The secrets that the variables hold themselves."""
    for module in descriptor.modules.values():
        environment = Environment.of(descriptor, module)
        secret = environment.settings.get("sessionSecret") if environment else None
        if isinstance(secret, str) and secret and not PLACEHOLDER.fullmatch(secret):
            yield secret


def _parameter_names(descriptor: Descriptor) -> list[str]:
    """The parameters that carry a secret."""
    environments = [Environment.of(descriptor, module) for module in descriptor.modules.values()]
    secrets = [str(environment.settings.get("sessionSecret")) for environment in environments if environment]
    return [*{PARAMETER, *(match[1] for secret in secrets for match in PLACEHOLDER.finditer(secret))}]


def _parameters(descriptor: Descriptor, names: Sequence[str]) -> list[Value]:
    found = [
        owner.get("parameters", name) for owner in (descriptor.root, *descriptor.modules.values()) for name in names
    ]
    return [value.written for value in found if value is not None and value.data is not None]


def _in_variable(value: Value) -> list[Span]:
    """The secret in a variable; all of it when its secret can't be told from the rest."""
    secret = value.get("sessionSecret")
    if secret is not None:
        hidden = isinstance(secret.data, str) and not PLACEHOLDER.fullmatch(secret.text)
        return [_inner(secret.written, secret.text)] if hidden else []
    if isinstance(value.data, (dict, list)) or PLACEHOLDER.fullmatch(value.text):
        return []
    start, end = _extent(value)
    found = list(_after_key(value.source.text, start, end))
    if all(closed for _span, closed in found) and _KEY.search(value.source.text, start, end):
        return [span for span, _closed in found]
    try:
        settings = json.loads(value.text)
    except ValueError:
        settings = None
    return [] if isinstance(settings, dict) and "sessionSecret" not in settings else [_inner(value, value.text)]


def _after_key(text: str, start: int, end: int) -> Iterator[tuple[Span, bool]]:
    """What stands behind ``sessionSecret:``, in quotes of any kind or to the end of the line, and whether it has an
    end. A placeholder is no secret.
    """
    for key in _KEY.finditer(text, start, end):
        quoted, rest = _QUOTED.match(text, key.end(), end), _REST.match(text, key.end(), end)
        group = "escaped" if quoted and quoted["escaped"] is not None else "plain"
        start, stop = quoted.span(group) if quoted else (key.end(), rest.end() if rest else key.end())
        secret = text[start:stop] if quoted else text[start:stop].rstrip(" \t,}") + "}" * text[start:stop].count("${")
        if secret.strip() and not PLACEHOLDER.fullmatch(secret):
            yield (start, stop), bool(quoted and quoted[f"{group}_end"])


def _extent(value: Value) -> Span:
    return value.start, value.end


def _inner(value: Value, text: str) -> Span:
    """Where the text of a scalar stands, without its quotes; all of the scalar when it is written otherwise."""
    at = value.raw.find(text) if text else -1
    return (value.start + at, value.start + at + len(text)) if at >= 0 else _extent(value)


def _merged(spans: Sequence[Span]) -> list[Span]:
    """The spans without those that lie in others."""
    result: list[Span] = []
    for start, end in sorted(set(spans), key=lambda span: (span[0], -span[1])):
        if not result or start >= result[-1][1]:
            result.append((start, end))
        elif end > result[-1][1]:
            result[-1] = result[-1][0], end
    return result
