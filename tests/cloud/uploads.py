# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a space in the deploy service: uploaded in one piece or in parts, or fetched by the service itself."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import threading
import time
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .archive import Archive, ContentError
from .standin import Answer, Request

MAX_FILE = 4 << 30
MAX_BODY = 1 << 20
"""Bytes that a request to the files, and any other, may have at most."""
RETRY_AFTER_S = 30
STALE_S = 30.0
"""A job that was not updated for so long is taken for dead."""
RUNNING, FINISHED, ERROR = "RUNNING", "FINISHED", "ERROR"
_BLOCK = 1 << 16


@dataclass
class File:
    name: str
    content: bytes
    digest: str
    namespace: str = ""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def view(self, space: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "size": len(self.content),
            "digest": self.digest,
            "digestAlgorithm": "MD5",
            "space": space,
            "namespace": self.namespace or None,
        }


@dataclass
class Job:
    """Fetches a file from a URL, for one user."""

    url: str
    user: str
    namespace: str
    status: str = RUNNING
    bytes_processed: int = 0
    error: str = ""
    file: File | None = None
    archive: Archive | None = None
    updated: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Uploads:
    """Answers the requests to ``files``.

    :param space: its guid.
    :param ca_file: PEM file of the authority that servers of files are trusted by.
    :param jobs_at_once: how many jobs may run at a time; the next one is refused with 429.
    """

    def __init__(self, space: str, ca_file: str, jobs_at_once: int = 4) -> None:
        self.files: dict[str, File] = {}
        self.jobs: dict[str, Job] = {}
        self.jobs_at_once = jobs_at_once
        self.max_file, self.stale_s = MAX_FILE, STALE_S
        self._space, self._context = space, ssl.create_default_context(cafile=ca_file)
        self._lock = threading.Lock()

    def add(self, name: str, content: bytes, namespace: str = "") -> File:
        """A file that is there, however it came."""
        file = File(name, content, hashlib.md5(content, usedforsecurity=False).hexdigest().upper(), namespace)
        with self._lock:
            self.files[file.id] = file
        return file

    def answer(self, request: Request, user: str, rest: str) -> Answer:
        """:param rest: the path behind ``files``."""
        namespace = request.query.get("namespace", "")
        if request.method == "POST" and not rest:
            return self._upload(request, namespace)
        if request.method == "POST" and rest == "/async":
            return self._fetch(request, user, namespace)
        if request.method == "GET" and not rest:
            with self._lock:
                found = [file for file in self.files.values() if file.namespace == namespace]
            return Answer(200, [file.view(self._space) for file in found])
        if request.method == "GET" and rest.startswith("/jobs/"):
            return self._job(rest.removeprefix("/jobs/"), user, namespace)
        return Answer(404, "Not Found")

    def _upload(self, request: Request, namespace: str) -> Answer:
        """The first file of the form counts, whatever its field is called."""
        match = re.match(r'multipart/form-data; *boundary="?([^";]+)"?', request.headers.get("content-type", ""))
        if match is None:
            return Answer(400, "The request is no multipart form")
        boundary, body = b"--" + match[1].encode(), request.body
        begin = body.find(boundary)
        blank, end = body.find(b"\r\n\r\n", begin), body.find(b"\r\n" + boundary, begin + 1)
        named = re.search(rb'filename="((?:[^"\\]|\\.)*)"', body[begin : max(blank, 0)])
        if begin < 0 or not 0 < blank < end or not named:
            return Answer(500, "Could not upload file: No files to upload")
        name = re.sub(r"\\(.)", r"\1", named[1].decode())
        return Answer(201, self.add(name, body[blank + 4 : end], namespace).view(self._space))

    def _fetch(self, request: Request, user: str, namespace: str) -> Answer:
        """Fetch a file from a URL in the background; whoever asks again while it runs is shown the job."""
        try:
            body = request.json()
            url = base64.urlsafe_b64decode(body["file_url"]).decode()
            parts = urlsplit(url)
        except (KeyError, TypeError, ValueError):
            return Answer(400, "file_url is no URL in base64")
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        with self._lock:
            running = [job for job in self.jobs.values() if job.status == RUNNING and not self._stale(job)]
            same = [job for job in running if (job.url, job.user, job.namespace) == (plain, user, namespace)]
            if not same and len(running) >= self.jobs_at_once:
                return Answer(429, None, {"retry-after": str(RETRY_AFTER_S)})
            job = same[0] if same else Job(plain, user, namespace)
            self.jobs[job.id] = job
        if not same:
            login = _login(parts.username, parts.password, body.get("credentials"))
            threading.Thread(target=self._run, args=(job, login), name=f"fetch {job.id}", daemon=True).start()
        place = {"location": f"spaces/{self._space}/files/jobs/{job.id}", "x-cf-app-instance": f"{self._space}:0"}
        return Answer(303 if same else 202, None, place)

    def _run(self, job: Job, login: str) -> None:
        try:
            content, name = self._content(job, login), unquote(PurePosixPath(urlsplit(job.url).path).name)
            archive = Archive.read(content)
        except (OSError, ValueError, ContentError) as error:
            job.error, job.status = str(error), ERROR
            return
        job.file, job.archive, job.status = self.add(name, content, job.namespace), archive, FINISHED

    def _content(self, job: Job, login: str) -> bytes:
        """:raises OSError, ValueError: it can't be fetched."""
        parts = urlsplit(job.url)
        if parts.scheme != "https":
            raise ValueError("Remote MTAR endpoint is not a secure connection. HTTPS required.")
        if not PurePosixPath(parts.path).suffix:
            raise ValueError(f'File "{PurePosixPath(parts.path).name}" does not have an extension')
        request = urllib.request.Request(job.url, headers={"Authorization": login} if login else {})
        with urllib.request.urlopen(request, timeout=STALE_S, context=self._context) as answer:
            size = answer.headers.get("Content-Length")
            if size is None:
                raise ValueError("The response of the file URL did not return Content-Length header")
            if int(size) > self.max_file:
                raise ValueError(f"Max upload size {self.max_file} exceeded")
            blocks: list[bytes] = []
            while block := answer.read(_BLOCK):
                blocks.append(block)
                job.bytes_processed, job.updated = job.bytes_processed + len(block), time.monotonic()
        return b"".join(blocks)

    def _stale(self, job: Job) -> bool:
        return job.status == RUNNING and time.monotonic() - job.updated > self.stale_s

    def _job(self, identity: str, user: str, namespace: str) -> Answer:
        with self._lock:
            job = self.jobs.get(identity)
        if job is None or (job.user, job.namespace) != (user, namespace):
            return Answer(404)
        found: dict[str, Any] = dict.fromkeys(("bytes_processed", "error", "file", "mta_id", "schema_version"))
        found |= {"status": job.status, "client_actions": []}
        if self._stale(job):
            found |= {"status": ERROR, "error": "The job is not being executed", "client_actions": ["RETRY_UPLOAD"]}
        elif job.status == ERROR:
            found["error"] = job.error
        elif job.file is not None and job.archive is not None:
            found |= {"file": job.file.view(self._space), "mta_id": job.archive.mta_id}
            found["schema_version"] = job.archive.schema_version
            return Answer(201, found)
        else:
            found["bytes_processed"] = job.bytes_processed
        return Answer(200, found)


def _login(username: str | None, password: str | None, credentials: Any) -> str:
    """The header Authorization for the server of the file; empty without a login."""
    if isinstance(credentials, Mapping):
        username, password = str(credentials.get("username", "")), str(credentials.get("password", ""))
    if not username:
        return ""
    return "Basic " + base64.b64encode(f"{unquote(username)}:{unquote(password or '')}".encode()).decode()
