# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cf CLI's multiapps plugin, as far as it speaks to services: it sends what the plugin sends, in its order, and
decodes as strictly as the plugin's models do.

Sources: github.com/cloudfoundry/multiapps-cli-plugin, commands and clients; what was seen of version 3.11.1.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import yaml
from ansible_collections.zdm.landscape.tests.cloud.archive import Archive
from ansible_collections.zdm.landscape.tests.integration.stand_ins.cf_flags import (
    ALWAYS,
    deploy_parameters,
    flag,
    switch,
)
from ansible_collections.zdm.landscape.tests.integration.stand_ins.go_models import (
    APPLICATIONS,
    BINDINGS,
    FILE,
    FILES,
    LOGS,
    MTAS,
    OPERATION,
    OPERATIONS,
    ROUTES,
    SERVICES,
    STATISTICS,
    STRINGS,
    UPLOAD_JOB,
    Model,
)
from ansible_collections.zdm.landscape.tests.integration.stand_ins.kit import Reply, Rest

_AGENT = "Multiapps-CF-plugin/3.11.1 (linux amd64)"
_ACTIVE = ("RUNNING", "ERROR", "ACTION_REQUIRED")
_POLL_S = 0.01
_KNOWN = ("application/json", "text/html", "text/plain", "application/octet-stream")


class Failed(Exception):
    """The command fails, with what it says last."""


@dataclass
class Plugin:
    """One command after the other, each with a session of its own, as every run of ``cf`` is a process."""

    rest: Rest
    chunk: int = 45 << 20
    """MULTIAPPS_UPLOAD_CHUNK_SIZE in bytes."""
    said: list[str] = field(default_factory=list)

    # -- commands ---------------------------------------------------------------------------------------

    def deploy(self, archive: Path | str, *, extensions: Sequence[Path] = (), **flags: Any) -> str:
        """``cf deploy``; the state in which the operation ends or waits.

        :param archive: a file, or a URL on standard input.
        :param flags: as the command has them, with underscores: ``strategy``, ``skip_testing_phase``, ``f`` …
        """
        self._begin()
        namespace = str(flags.get("namespace", "")).strip()
        if isinstance(archive, str):
            job = self._upload_from_url(archive, namespace)
            mta_id, schema, parts = job["mta_id"], job["schema_version"], [job["file"]["id"]]
            self._check_ongoing(mta_id, namespace, flags)
            holder, secure = self._secure(mta_id, namespace, schema, flags)
        else:
            read = Archive.read(archive.read_bytes())
            mta_id, schema = read.mta_id, read.schema_version
            self._check_ongoing(mta_id, namespace, flags)
            holder, secure = self._secure(mta_id, namespace, schema, flags)
            parts = self._upload([archive], namespace)
        ids = self._upload(extensions, namespace) if extensions else []
        if secure:
            ids.append(self._part("__mta.secure.mtaext", secure, namespace)["id"])
        body = deploy_parameters(flags) | {
            "appArchiveId": ",".join(parts),
            "mtaExtDescriptorId": ",".join(ids),
            "mtaId": mta_id,
            "disposableUserProvidedServiceName": holder,
        }
        kind = "DEPLOY" if flags.get("strategy", "default") == "default" else "BLUE_GREEN_DEPLOY"
        return self._start(kind, body, namespace, int(flags.get("retries", 3)))

    def undeploy(self, mta_id: str, **flags: Any) -> str:
        names = ("noRestartSubscribedApps", "deleteServices", "deleteServiceKeys", "deleteServiceBrokers")
        return self._on_deployed("UNDEPLOY", mta_id, names, flags)

    def rollback_mta(self, mta_id: str, **flags: Any) -> str:
        return self._on_deployed("ROLLBACK_MTA", mta_id, ("processUserProvidedServices", "deleteServices"), flags)

    def _on_deployed(self, kind: str, mta_id: str, names: Sequence[str], flags: Mapping[str, Any]) -> str:
        self._begin()
        namespace = str(flags.get("namespace", "")).strip()
        self._deployed(mta_id, namespace)
        self._check_ongoing(mta_id, namespace, {**flags, "f": True})
        switches = {name: switch(flags.get(flag(name))) for name in (*names, *ALWAYS)}
        return self._start(kind, {"mtaId": mta_id, "namespace": namespace, **switches}, "", 3)

    def action(self, operation: str, action: str, retries: int = 3) -> str:
        """``cf deploy -i OPERATION -a ACTION``; the state in which it ends or waits."""
        self._begin()
        known = self._read("/operations", OPERATIONS)
        if operation not in [entry["processId"] for entry in known]:
            raise Failed(f"Multi-target app operation with ID {operation} not found")
        reported = {message["id"] for message in self._operation(operation)["messages"] or ()}
        if action != "monitor":
            self._expect(self._post(f"/operations/{operation}?actionId={action}"), 202)
        if action == "abort":
            return str(self._operation(operation)["state"])
        return self._monitor(operation, retries, reported)

    def mtas(self) -> list[tuple[str, str]]:
        self._begin()
        found = self._decode(self._get(self._v2("mtas")), MTAS)
        return [(mta["metadata"]["id"], mta["metadata"].get("version") or "?") for mta in found]

    def mta(self, mta_id: str) -> dict[str, Any]:
        """``cf mta``: what it shows of applications and services."""
        self._begin()
        mta = self._deployed(mta_id, "")[0]
        selector = f"mta_id={hashlib.md5(mta_id.encode(), usedforsecurity=False).hexdigest()},!mta_namespace"
        space = f"space_guids={self.rest.cloud.space.guid}&label_selector={selector}"
        apps = {
            app["name"]: (
                app["state"],
                [one["state"] for one in self._v3(f"apps/{app['guid']}/processes/web/stats", STATISTICS)],
                [route["url"] for route in self._v3(f"apps/{app['guid']}/routes", ROUTES)],
            )
            for app in self._v3(f"apps?{space}", APPLICATIONS)
        }
        fields = "fields[service_plan]=guid,name,relationships.service_offering"
        fields += "&fields[service_plan.service_offering]=guid,name"
        services = {
            service["name"]: (service["last_operation"]["state"], self._bound(service["name"]))
            for service in self._v3(f"service_instances?{fields}&{space}", SERVICES)
        }
        return {"version": mta["metadata"].get("version") or "?", "apps": apps, "services": services}

    def _bound(self, service: str) -> list[str]:
        query = f"service_credential_bindings?type=app&include=app&service_instance_names={service}"
        reply = self._get(f"/v3/{query}")
        page = self._decode(reply, BINDINGS)
        names = {app["guid"]: app["name"] for app in (page.get("included") or {}).get("apps") or ()}
        return sorted(names[entry["relationships"]["app"]["data"]["guid"]] for entry in page["resources"])

    def mta_ops(self, mta_id: str = "", last: int = 0, *, everything: bool = False) -> list[dict[str, Any]]:
        self._begin()
        query = [f"mtaId={mta_id}"] if mta_id else []
        query += [f"last={last}"] if last else []
        query += [] if last or everything else [f"state={state}" for state in _ACTIVE]
        found: list[dict[str, Any]] = self._read("/operations" + ("?" if query else "") + "&".join(query), OPERATIONS)
        return found

    def dmol(self, operation: str) -> dict[str, str]:
        """``cf download-mta-op-logs``: the logs' contents."""
        self._begin()
        logs = self._read(f"/operations/{operation}/logs", LOGS)
        return {log["id"]: self._text(f"/operations/{operation}/logs/{log['id']}/content") for log in logs}

    # -- parts of them ----------------------------------------------------------------------------------

    def _check_ongoing(self, mta_id: str, namespace: str, flags: Mapping[str, Any]) -> None:
        states = "&".join(f"state={state}" for state in _ACTIVE)
        for entry in self._read(f"/operations?mtaId={quote(mta_id)}&{states}", OPERATIONS):
            if not entry["acquiredLock"] or (entry.get("namespace") or "") != namespace:
                continue
            if not flags.get("f"):
                raise Failed(f"There is an ongoing operation for multi-target app {mta_id}")
            self._expect(self._post(f"/operations/{entry['processId']}?actionId=abort"), 202)

    def _deployed(self, mta_id: str, namespace: str) -> list[dict[str, Any]]:
        reply = self._get(self._v2(f"mtas?name={mta_id}" + (f"&namespace={namespace}" if namespace else "")))
        if reply.status == 404 and mta_id in reply.text:
            raise Failed(f"Multi-target app {mta_id} not found")
        found: list[dict[str, Any]] = self._decode(reply, MTAS)
        assert found, "the plugin takes the first of the list, whatever its length"
        return found

    def _secure(self, mta_id: str, namespace: str, schema: str, flags: Mapping[str, Any]) -> tuple[str, bytes]:
        """Ensure the user-provided service with the key; its name when it is a disposable one, and the extension
        descriptor.
        """
        given = flags.get("require_secure_parameters")
        if not given:
            return "", b""
        name = "-".join(["__mta-secure", mta_id, *filter(None, [namespace])])
        disposable = bool(flags.get("disposable_user_provided_service"))
        if disposable:
            name += f"-{secrets.token_hex(4)[:7]}"
        space = self.rest.cloud.space.guid
        if disposable or not self._v3(f"service_instances?names={name}&space_guids={space}", SERVICES):
            body = {
                "credentials": {"encryptionKey": secrets.token_hex(16)},
                "name": name,
                "relationships": {"space": {"data": {"guid": space}}},
                "type": "user-provided",
            }
            reply = self.rest.send("POST", "/v3/service_instances", _json(body), {"Content-Type": "application/json"})
            self._expect(reply, 201)
        extension = {"ID": "__mta.secure", "_schema-version": schema, "extends": mta_id, "parameters": dict(given)}
        return (name if disposable else ""), yaml.safe_dump(extension).encode()

    def _upload(self, files: Sequence[Path], namespace: str) -> list[str]:
        known = self._read("/files" + (f"?namespace={namespace}" if namespace else ""), FILES)
        ids: list[str] = []
        for path in files:
            content = path.read_bytes()
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest().upper()
            same = [entry["id"] for entry in known if (entry["name"], entry["digest"]) == (path.name, digest)]
            ids += same[:1] or self._in_chunks(path.name, content, namespace)
        return ids

    def _in_chunks(self, name: str, content: bytes, namespace: str) -> list[str]:
        """The parts at the same time; their ids in the order in which they ended."""
        if len(content) <= self.chunk:
            return [self._part(name, content, namespace)["id"]]
        count = -(-len(content) // self.chunk)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(
                    self._part,
                    f"{name}.part.{number}",
                    content[number * self.chunk : (number + 1) * self.chunk],
                    namespace,
                )
                for number in range(count)
            ]
            return [job.result()["id"] for job in concurrent.futures.as_completed(jobs)]

    def _part(self, name: str, content: bytes, namespace: str) -> dict[str, Any]:
        boundary = secrets.token_hex(30)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            f"Content-Length: {len(content)}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        path = "/files" + (f"?namespace={namespace}" if namespace else "")
        reply = self._post(path, body, f"multipart/form-data; boundary={boundary}")
        if reply.status // 100 != 2:
            raise Failed(f"could not upload file {name}: {reply.status}")
        found: dict[str, Any] = self._decode(reply, FILE)
        return found

    def _upload_from_url(self, url: str, namespace: str) -> dict[str, Any]:
        encoded = base64.urlsafe_b64encode(url.encode()).decode()
        suffix = f"?namespace={namespace}" if namespace else ""
        reply = self._post(f"/files/async{suffix}", _json({"file_url": encoded}), "application/json")
        if reply.status // 100 not in (2, 3):
            raise Failed(f"could not start async file upload: {reply.status}")
        path = f"{self.rest.base}/files/jobs/{reply.headers['Location'].rpartition('/')[2]}{suffix}"
        while True:
            answer = self.rest.send("GET", path, None, {"x-cf-app-instance": reply.headers["x-cf-app-instance"]})
            if answer.status // 100 != 2:
                raise Failed(f"could not get async file upload job: {answer.status}")
            job: dict[str, Any] = self._decode(answer, UPLOAD_JOB)
            if job.get("error"):
                raise Failed(f"Async upload job failed: {job['error']}")
            if job.get("file"):
                return job
            time.sleep(_POLL_S)

    def _start(self, kind: str, parameters: Mapping[str, str], namespace: str, retries: int) -> str:
        """Empty parameters are not sent; the order is that of Go's encoder."""
        given = {name: parameters[name] for name in sorted(parameters) if parameters[name]}
        body = {**({"namespace": namespace} if namespace else {}), "parameters": given, "processType": kind}
        reply = self._post("/operations", _json(body) + b"\n", "application/json")
        self._expect(reply, 202)
        place = urlsplit(str(reply.headers["Location"]))
        assert parse_qs(place.query)["embed"] == ["messages"]
        return self._monitor(place.path.split("operations/")[1], retries, set())

    def _monitor(self, operation: str, retries: int, reported: set[int]) -> str:
        while True:
            found = self._operation(operation)
            for message in found["messages"] or ():
                if message["id"] not in reported:
                    reported.add(message["id"])
                    self.said.append(message["text"])
            if found["state"] == "ERROR" and found.get("errorType") != "CONTENT" and retries:
                retries -= 1
                self._expect(self._post(f"/operations/{operation}?actionId=retry"), 202)
            elif found["state"] == "ERROR":
                assert any(message["type"] == "ERROR" for message in found["messages"])
                self._read(f"/operations/{operation}/actions", STRINGS)
                return "ERROR"
            elif found["state"] != "RUNNING":
                return str(found["state"])
            time.sleep(_POLL_S)

    def _operation(self, operation: str) -> dict[str, Any]:
        found: dict[str, Any] = self._read(f"/operations/{operation}?embed=messages", OPERATION)
        return found

    # -- requests ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A new session: the token against cross-site requests is asked for twice, the second time with the cookie."""
        asked = {"X-Csrf-Token": "Fetch", "Content-Type": "application/json", "User-Agent": _AGENT}
        first = self.rest.send("GET", "/api/v1/csrf-token", None, asked)
        cookie = str(first.headers["Set-Cookie"]).partition(";")[0]
        again = self.rest.send("GET", "/api/v1/csrf-token", None, {**asked, "Cookie": cookie})
        assert again.headers["X-Csrf-Token"] == first.headers["X-Csrf-Token"]
        self._session = {str(again.headers["X-Csrf-Header"]): str(again.headers["X-Csrf-Token"]), "Cookie": cookie}

    def _get(self, path: str) -> Reply:
        return self.rest.send("GET", path, None, {"Accept": "application/json", "User-Agent": _AGENT})

    def _post(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Reply:
        headers = {"Accept": "application/json", "Content-Type": kind, "User-Agent": _AGENT, **self._session}
        return self.rest.send("POST", f"{self.rest.base}{path}", body, headers)

    def _read(self, path: str, model: Model) -> Any:
        return self._decode(self._get(f"{self.rest.base}{path}"), model)

    def _text(self, path: str) -> str:
        reply = self._get(f"{self.rest.base}{path}")
        self._expect(reply, 200)
        assert reply.headers["Content-Type"].startswith("text/"), "the plugin has no other consumer for a text"
        return reply.text

    def _v2(self, path: str) -> str:
        return f"/api/v2/spaces/{self.rest.cloud.space.guid}/{path}"

    def _v3(self, path: str, model: Model) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._decode(self._get(f"/v3/{path}"), model)["resources"]
        return found

    def _decode(self, reply: Reply, model: Model) -> Any:
        if reply.status // 100 != 2:
            raise Failed(f"{reply.status}: {reply.text}")
        assert reply.headers["Content-Type"].partition(";")[0] == "application/json"
        return model(reply.json(), "")

    def _expect(self, reply: Reply, status: int) -> None:
        """An answer that is none of JSON or text has no consumer, whatever its status."""
        assert (reply.headers["Content-Type"] or "application/json").partition(";")[0] in _KNOWN
        if reply.status != status:
            raise Failed(f"{reply.status}: {reply.text}")


def _json(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
