# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in the deploy service: archives, in parts as the plugin of the cf CLI sends them, and extension descriptors; or
archives that the service fetches itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    OutcomeUnknown,
    Refused,
    Unreachable,
    sentence,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import BUSY, Answer, retry_after_s, shown
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.rest import Rest

PART_BYTES = 45 * 1024 * 1024
"""The size of the plugin's parts: what is longer is sent in parts ``<name>.part.<N>``, which the service puts together
by their number.
"""
UPLOAD_S = 600.0
_BLOCK = 1 << 20
_AGAIN = "Nothing was started, live is as it was: run the same command again."

Told = Callable[[int, int], None]
"""Gets the bytes that are there, and all."""
Wait = Callable[[Callable[[], bool]], bool]
"""Asks until it is true; whether it is before time is over."""


@dataclass(frozen=True)
class Piece:
    """Something to upload, or a part of it."""

    opened: Callable[[], BinaryIO]
    name: str
    start: int
    length: int
    md5: str


class Upload:
    """The body of a multipart request, read from the file while it is sent."""

    def __init__(self, file: BinaryIO, piece: Piece, boundary: str) -> None:
        name = piece.name.replace("\\", "_").replace('"', "_")
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type:'
            " application/octet-stream\r\n\r\n"
        )
        tail = f"\r\n--{boundary}--\r\n"
        self.length = len(head.encode()) + piece.length + len(tail)
        file.seek(piece.start)
        self._file, self._left = file, piece.length
        self._head, self._tail = BytesIO(head.encode()), BytesIO(tail.encode())

    def read(self, size: int = -1, /) -> bytes:
        block = self._head.read(size)
        if not block and self._left:
            block = self._file.read(self._left if size < 0 else min(size, self._left))
            self._left -= len(block)
        return block or self._tail.read(size)


class Files:
    """The space's files."""

    def __init__(self, rest: Rest, namespace: str = "") -> None:
        self._rest, self._namespace = rest, namespace
        self._query = f"?{urlencode({'namespace': namespace})}" if namespace else ""
        self._url = f"{rest.space}/files{self._query}"

    def ensure(self, path: str, md5: str, told: Told | None = None) -> str:
        """The ids of the file's parts in the service, joined by commas; only what it has not is sent.

        :param md5: of the whole file, as the service writes it.
        :raises Unreachable: it can't be uploaded; nothing was started.
        """
        size, name = os.path.getsize(path), Path(path).name

        def opened() -> BinaryIO:
            return open(path, "rb")

        if size <= PART_BYTES:
            return self._ensure(Piece(opened, name, 0, size, md5))
        ids = []
        for number, start in enumerate(range(0, size, PART_BYTES)):
            length = min(PART_BYTES, size - start)
            piece = Piece(opened, f"{name}.part.{number}", start, length, _md5(path, start, length))
            ids.append(self._ensure(piece))
            if told:
                told(start + length, size)
        return ",".join(ids)

    def ensure_content(self, name: str, content: bytes, md5: str) -> str:
        """The id of a file with this content, which is in no file of this host. Raises as :meth:`ensure`."""
        return self._ensure(Piece(partial(BytesIO, content), name, 0, len(content), md5))

    def fetch(self, url: str, credentials: Mapping[str, str], md5: str, wait: Wait, told: Told | None = None) -> str:
        """Have the service fetch an archive; returns the file's id.

        :param credentials: ``username`` and ``password`` for the URL, or none.
        :param md5: what it must bring.
        :raises Refused: it brings another file, or none.
        :raises Unreachable: it does not end in time.
        """
        body: dict[str, Any] = {"file_url": base64.urlsafe_b64encode(url.encode()).decode()}
        if credentials:
            body["credentials"] = dict(credentials)
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self._job(body, found.get("job", ""), url))
            if told and int(found.get("bytes_processed") or 0) > 0:
                told(int(found["bytes_processed"]), 0)
            return bool(found.get("file"))

        if not wait(ended):
            raise Unreachable(f"The deploy service does not fetch {shown(url)} in time.", _AGAIN)
        if str(found["file"].get("digest")).upper() != md5:
            raise Refused(
                f"The deploy service has fetched another file from {shown(url)} than this run has read.",
                "Somebody has replaced it: run the same command again, with a checksum.",
            )
        return str(found["file"]["id"])

    def _job(self, body: Mapping[str, Any], job: str, url: str) -> dict[str, Any]:
        """Start the job, or ask for it: one for the same URL that runs already is joined."""
        rest = self._rest
        if not job:
            try:
                answer = rest.post(f"{rest.space}/files/async{self._query}", json.dumps(body).encode())
            except OutcomeUnknown:
                return {}  # asked for again, which joins it
            if answer.status in BUSY:
                rest.web.sleep(retry_after_s(answer, rest.web.pause_s))
                return {}
            if answer.status != 303:
                rest.expected(answer, f"to fetch {shown(url)}")
            return {"job": str(answer.headers.get("Location") or "").rstrip("/").rpartition("/")[2]}
        answer = rest.get(f"{rest.space}/files/jobs/{job}{self._query}", missing=True)
        if not answer.ok:
            return {"job": ""}  # not written yet, or gone
        state = answer.json()
        if state.get("status") == "ERROR":
            if "RETRY_UPLOAD" in (state.get("client_actions") or ()):
                return {"job": ""}
            raise Refused(
                f"The deploy service can't fetch {shown(url)}: {sentence(str(state.get('error') or ''))}",
                "Correct the URL and its credentials, or let this host upload the archive.",
            )
        return dict(state)

    def _ensure(self, piece: Piece) -> str:
        problem = ""
        web = self._rest.web
        for attempt in range(web.attempts):
            for known in self._rest.list(self._url):
                if (known.get("digest"), known.get("name"), known.get("namespace") or "") == (
                    piece.md5,
                    piece.name,
                    self._namespace,
                ):
                    return str(known["id"])
            try:
                answer = self._upload(piece)
            except OutcomeUnknown as error:
                problem = error.message
            else:
                if answer.status == 413:
                    raise Refused(f"{piece.name} is too long for the deploy service.", "Make the archive smaller.")
                if answer.status not in BUSY:
                    return _uploaded(self._rest.expected(answer, f"the upload of {piece.name}").json(), piece)
                problem = f"it answers with status {answer.status}: {answer.said}"
            if attempt + 1 < web.attempts:
                web.sleep(web.pause_s * 2**attempt)
        raise Unreachable(f"{piece.name} can't be uploaded: {problem}", _AGAIN)

    def _upload(self, piece: Piece) -> Answer:
        boundary = secrets.token_hex(16)
        with piece.opened() as file:
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(Upload(file, piece, boundary).length),
            }
            return self._rest.send(self._url, headers, lambda: Upload(file, piece, boundary), UPLOAD_S)


def _md5(path: str, start: int, length: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        file.seek(start)
        while length and (block := file.read(min(length, _BLOCK))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest().upper()


def _uploaded(body: Any, piece: Piece) -> str:
    if not isinstance(body, dict) or not body.get("id") or str(body.get("digest") or piece.md5).upper() != piece.md5:
        raise Unreachable(f"{piece.name} did not arrive as it was sent.", _AGAIN)
    return str(body["id"])
