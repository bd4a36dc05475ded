# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real router deployed by the role, a service behind it, tokens and requests."""

from __future__ import annotations

import copy
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import jwt
import yaml
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.router.haproxy import HAProxyRouter
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore
from ansible_collections.zdm.landscape.tests.landscape.keys import Certificates
from ansible_collections.zdm.landscape.tests.landscape.processes import Process, Processes, User, free_port, wait_until
from ansible_collections.zdm.landscape.tests.landscape.programs import Program, haproxy
from ansible_collections.zdm.landscape.tests.landscape.routers import ansible_environment, ansible_playbook
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

HOST = "127.0.0.1"
A, B, C = "guid-a", "guid-b", "guid-c"
MIGRATION = "a--b"
SECRET = "a$b,)( #'\"\\ Ünïcode 0123456789012345678901234"
XSUAA, YAAS = "https://a.auth.example.com/oauth/token", "https://api.yaas.example"
PRIVATE_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_PEM = PRIVATE_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good token of the first issuer for tenant A; ``None`` leaves a claim out."""
    good = {"iss": XSUAA, "aud": ["openid", "rc!b1"], "zid": A, "exp": int(time.time()) + 60}
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def token(tenant_id: str = A, kid: str | None = "key-1", **changes: Any) -> str:
    """A token as XSUAA signs it."""
    return jwt.encode(claims(zid=tenant_id, **changes), PRIVATE_KEY, "RS256", headers={"kid": kid} if kid else {})


def other_token(subdomain: str = "a", secret: str = SECRET, **changes: Any) -> str:
    """A token of the second issuer, which names the subdomain and signs with a secret."""
    return jwt.encode(
        claims(**{"iss": YAAS, "aud": "rc", "zid": None, "tenant": subdomain, **changes}), secret, "HS256"
    )


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def why(self) -> str | None:
        """The router's reason when it answered itself."""
        return self.headers.get("x-router")

    @property
    def seen(self) -> dict[str, Any]:
        """What the service saw: path and headers."""
        return dict(json.loads(self.body))

    @property
    def tenant(self) -> str:
        """The id that the service was told; it must be told exactly one."""
        ids = [value for name, value in self.seen["headers"] if name == "x-tenant-id"]
        assert len(ids) == 1, ids
        return str(ids[0])


class Service:
    """Answers with what it saw. ``/…/slow`` waits until :attr:`gate` is set; ``/…/held`` claims what only the router
    may say.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.count = 0
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.count += 1
                if self.path.endswith("/slow"):
                    service.arrived.release()
                    service.gate.wait(60)
                body = json.dumps(
                    {"path": self.path, "headers": [[name.lower(), value] for name, value in self.headers.items()]}
                ).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                if self.path.endswith("/held"):
                    self.send_header("x-router-held", "54321")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that left is no error."""

        self._server = Server((HOST, 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def await_arrival(self) -> None:
        """Wait until one more slow request is here."""
        assert self.arrived.acquire(timeout=20), "no slow request has arrived"

    def reset(self) -> None:
        """Slow requests wait again; the counts start at zero."""
        self.gate.clear()
        self.arrived = threading.Semaphore(0)
        self.count = 0

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Deployment:
    """One router's directory as the role made it, and its running process."""

    folder: Path
    processes: Processes
    certificates: Certificates
    service: Service
    process: Process | None = None
    variables: dict[str, Any] = field(default_factory=dict)

    EXTRA: ClassVar[dict[str, Any]] = {
        "landscape_router_hold_max": "3s",
        "landscape_router_held_limit": 5,
        "landscape_router_threads": 2,
    }

    def __post_init__(self) -> None:
        self.home, self.store_path = self.folder / "router", self.folder / "store"
        self.port, self.control_port = free_port(), free_port()
        keys = self.folder / "keys"
        keys.mkdir()
        (keys / "key-1.pem").write_bytes(PUBLIC_PEM)
        self.store_path.mkdir()
        xsuaa = {
            "issuer": "https://*.auth.example.com/oauth/token",
            "algorithm": "RS256",
            "keys_dir": str(keys),
            "audience": "rc!b1",
        }
        yaas = {
            "issuer": YAAS,
            "algorithm": "HS256",
            "secret": SECRET,
            "audience": "rc",
            "tenant_claim": "tenant",
            "tenant_claim_is": "subdomain",
        }
        server = f"{HOST}:{self.service.port}"
        self.variables = {
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "zdm_landscape": {
                "store": {"path": str(self.store_path)},
                "issuers": [xsuaa, yaas],
                "router": {"ca_file": str(self.certificates.authority)},
            },
            "landscape_router_dir": str(self.home),
            "landscape_router_name": "router-1",
            "landscape_router_bind_address": HOST,
            "landscape_router_port": self.port,
            "landscape_router_control_port": self.control_port,
            "landscape_router_control_cert": str(self.certificates.router),
            "landscape_router_haproxy": str(haproxy().path),
            "landscape_router_service": "none",
            "landscape_router_user": User.unprivileged("haproxy").name,
            "landscape_router_backends": [
                {"name": "bills", "path": "/bills", "servers": [server]},
                {"name": "bills-archive", "path": "/bills/archive", "channel": "beta", "servers": [server]},
                {"name": "rating", "path": "/rating", "datacenter": "us10", "channel": "stable", "servers": [server]},
                {"name": "dead", "path": "/dead", "servers": [f"{HOST}:{free_port()}"]},
            ],
            **self.EXTRA,
        }

    def play(self, *arguments: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run the role."""
        return self.run_play({"roles": ["zdm.landscape.landscape_router"]}, *arguments, **changes)

    def run_play(self, content: Mapping[str, Any], *arguments: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run a play on this host with the deployment's variables."""
        playbook = self.folder / "router.yml"
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {**self.variables, **changes},
            **content,
        }
        playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")
        command = [str(ansible_playbook()), "-i", "localhost,", *arguments, str(playbook)]
        return subprocess.run(
            command, env=ansible_environment(self.folder), capture_output=True, text=True, timeout=300, check=False
        )

    @property
    def store(self) -> FileStore:
        return FileStore(self.store_path)

    def fill_store(self, **journal: Any) -> None:
        """Three onboarded tenants, B and C mapped to A; with *journal* an unfinished migration from A to B that C is
        part of.
        """
        for name in ("onboarded-tenants", "migrations", "claims", "tenants"):
            shutil.rmtree(self.store_path / name, ignore_errors=True)
        for name, tenant_id in (("a", A), ("b", B), ("c", C), ("d", "guid-d")):
            body = {"id": tenant_id, "subdomain": name, "datacenter": "us10", "channel": "stable"}
            if name in ("b", "c"):
                body |= {"mapToTenant": "a", "mapToTenantId": A}
            self.store.put("onboarded-tenants", name, body, None)
        if journal:
            self.store.put("migrations", MIGRATION, journal_body(**journal), None)

    def copy_to(self, name: str, edit: Callable[[str], str] = str, program: Program | None = None) -> Deployment:
        """A second router with a directory and ports of its own.

        :param edit: what is changed in the configuration that the role has rendered.
        :param program: another HAProxy.
        """
        other = copy.copy(self)
        other.home, other.port, other.control_port, other.process = self.folder / name, free_port(), free_port(), None
        shutil.copytree(self.home, other.home, ignore=shutil.ignore_patterns("*.sock", "pid", "lock"))
        configuration = (other.home / "haproxy.cfg").read_text()
        places = {
            str(self.home): str(other.home),
            f":{self.port}'": f":{other.port}'",
            f":{self.control_port}'": f":{other.control_port}'",
        }
        for before, after in places.items():
            assert configuration.count(before) == 1, (
                f"{before!r} is {configuration.count(before)} times in the configuration"
            )
            configuration = configuration.replace(before, after)
        (other.home / "haproxy.cfg").write_text(edit(configuration))
        if program:
            settings = json.loads((other.home / "router.json").read_text())
            (other.home / "router.json").write_text(json.dumps({**settings, "haproxy": str(program.path)}))
        return other

    def launch(self) -> Process:
        """Start the start script; it may not be ready yet."""
        self.process = self.processes.start("router", [str(self.home / "bin" / "zdm-router")])
        return self.process

    def start(self) -> None:
        self.launch().wait_ready(lambda: self.get("/.router/health", None).status == 200)

    def stop(self) -> None:
        if self.process is not None:
            self.processes.stop(self.process)
            self.process = None

    def client(self, tls: bool = False, **changes: Any) -> HAProxyRouter:
        """A client of the router's control endpoint."""
        if not tls:
            return HAProxyRouter("router-1", socket=str(self.home / "run" / "master.sock"), **changes)
        own = str(self.certificates.controller)
        return HAProxyRouter(
            "router-1",
            **{
                "host": HOST,
                "port": self.control_port,
                "ca_file": str(self.certificates.authority),
                "cert_file": own,
                **changes,
            },
        )

    def get(self, path: str, bearer: str | None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; status 0 when the connection fails."""
        every = {**(headers or {}), **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            connection.request("GET", path, headers=every)
            response = connection.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read().decode(),
            )
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {}, repr(error))
        finally:
            connection.close()

    def raw(self, request: str) -> str:
        """Send bytes as they are and return everything that comes back."""
        with socket.create_connection((HOST, self.port), timeout=20) as connection:
            connection.sendall(request.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def journal_body(phase: str = "W", epoch: int = 5, canonical: str = A, **changes: Any) -> dict[str, Any]:
    """A journal of the migration from A to B, with C as an alias."""
    return {
        "format": 1,
        "migration": MIGRATION,
        "source": {"subdomain": "a", "id": A},
        "target": {"subdomain": "b", "id": B},
        "epoch": epoch,
        "phase": phase,
        "canonical": canonical,
        "from": A,
        "to": B,
        "aliases": [C],
        **changes,
    }


class Background:
    """A request that runs beside the test."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._answers: list[Answer] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(ask()), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def answer(self, timeout_s: float = 30) -> Answer:
        self._thread.join(timeout_s)
        assert self._answers, "the request did not end"
        return self._answers[0]


def is_ready(client: HAProxyRouter) -> bool:
    """Whether a router serves; its master starts itself again at its start."""
    try:
        return client.state().ready
    except Unreachable:
        return False


def wait_for(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, what, timeout_s=20, pause_s=0.01)


@contextmanager
def deployed(folder: Path, **changes: Any) -> Iterator[Deployment]:
    """Apply the role once, with *changes* of its variables; the router and the service end with the block."""
    certificates_folder = folder / "certificates"
    certificates_folder.mkdir()
    logs = folder / "logs"
    logs.mkdir()
    service = Service()
    try:
        with Processes(logs) as processes:
            deployment = Deployment(folder, processes, Certificates.make(certificates_folder), service)
            deployment.variables.update(changes)
            done = deployment.play()
            assert done.returncode == 0, done.stdout + done.stderr
            yield deployment
    finally:
        service.close()
