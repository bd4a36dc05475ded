# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decoders that are as strict as Go's for the plugin's models: a field of another type is an error, one that is missing
or null is not, and one that is not known is left out.

Sources: github.com/cloudfoundry/multiapps-cli-plugin, clients/models and clients/mtaclient.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

Model = Callable[[Any, str], Any]


class Unreadable(Exception):
    """What the real plugin can't decode."""


def _of(*types: type) -> Model:
    def decode(value: Any, where: str) -> Any:
        wrong_number = isinstance(value, bool) and bool not in types
        if value is not None and (wrong_number or not isinstance(value, types)):
            raise Unreadable(f"{where}: {value!r} is no {types[0].__name__}")
        return value

    return decode


def _one_of(*values: str) -> Model:
    def decode(value: Any, where: str) -> Any:
        if value is not None and value not in values:
            raise Unreadable(f"{where}: {value!r} is none of {values}")
        return value

    return decode


def _date_time(value: Any, where: str) -> Any:
    """Go's parser takes RFC 3339 and nothing behind it, such as ``[UTC]``."""
    try:
        if value is not None:
            datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{where}: {value!r} is no date-time") from error
    return value


def _date(value: Any, where: str) -> Any:
    try:
        if value is not None:
            date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{where}: {value!r} is no date") from error
    return value


def _list(model: Model) -> Model:
    def decode(value: Any, where: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise Unreadable(f"{where}: {value!r} is no list")
        return [model(entry, f"{where}[{number}]") for number, entry in enumerate(value)]

    return decode


def _struct(**fields: Model) -> Model:
    def decode(value: Any, where: str) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Unreadable(f"{where}: {value!r} is no object")
        return {name: model(value[name], f"{where}.{name}") for name, model in fields.items() if name in value}

    return decode


STRING, BOOL, INT, FLOAT, ANY = _of(str), _of(bool), _of(int), _of(float, int), lambda value, _where: value
STRINGS = _list(STRING)
_MESSAGE = _struct(
    id=INT, text=STRING, timestamp=STRING, type=_one_of("INFO", "ERROR", "WARNING", "EXT", "TASK_STARTUP")
)
OPERATION = _struct(
    acquiredLock=BOOL,
    messages=_list(_MESSAGE),
    mtaId=STRING,
    namespace=STRING,
    parameters=ANY,
    processId=STRING,
    processType=STRING,
    spaceId=STRING,
    startedAt=STRING,
    state=_one_of("RUNNING", "FINISHED", "ERROR", "ABORTED", "ACTION_REQUIRED"),
    errorType=_one_of("CONTENT", "INFRASTRUCTURE", "UNKNOWN"),
    user=STRING,
)
OPERATIONS = _list(OPERATION)
FILE = _struct(
    digest=STRING, digestAlgorithm=STRING, id=STRING, name=STRING, size=FLOAT, space=STRING, namespace=STRING
)
FILES = _list(FILE)
LOGS = _list(
    _struct(
        content=STRING, description=STRING, displayName=STRING, externalInfo=STRING, id=STRING, size=INT,
        lastModified=_date_time,
    )
)  # fmt: skip
_MODULE = _struct(
    appName=STRING,
    createdOn=_date,
    moduleName=STRING,
    providedDendencyNames=STRINGS,
    services=STRINGS,
    updatedOn=_date,
    uris=STRINGS,
)
MTAS = _list(
    _struct(metadata=_struct(id=STRING, version=STRING, namespace=STRING), modules=_list(_MODULE), services=STRINGS)
)
UPLOAD_JOB = _struct(
    status=STRING,
    error=STRING,
    file=FILE,
    mta_id=STRING,
    schema_version=STRING,
    bytes_processed=INT,
    client_actions=STRINGS,
)


def _page(resource: Model, **included: Model) -> Model:
    pagination = _struct(next=_struct(href=STRING), total_pages=INT, total_results=INT)
    return _struct(pagination=pagination, resources=_list(resource), included=_struct(**included))


def _guid(*names: str) -> Model:
    return _struct(**{name: _struct(data=_struct(guid=STRING)) for name in names})


_APPLICATION = _struct(
    name=STRING,
    guid=STRING,
    state=STRING,
    relationships=_guid("space"),
    metadata=_struct(annotations=_struct(mta_namespace=STRING)),
)
APPLICATIONS = _page(_APPLICATION)
STATISTICS = _page(_struct(state=STRING, usage=_struct(mem=INT, disk=INT)))
ROUTES = _page(_struct(host=STRING, path=STRING, url=STRING))
_STAMPED = _struct(type=STRING, state=STRING, description=STRING, created_at=STRING, updated_at=STRING)
SERVICES = _page(
    _struct(
        guid=STRING,
        name=STRING,
        type=STRING,
        tags=STRINGS,
        last_operation=_STAMPED,
        relationships=_guid("service_plan", "space"),
    ),
    service_plans=_list(_struct(guid=STRING, name=STRING, relationships=_guid("service_offering"))),
    service_offerings=_list(_struct(guid=STRING, name=STRING)),
)
BINDINGS = _page(_struct(guid=STRING, name=STRING, relationships=_guid("app")), apps=_list(_APPLICATION))
