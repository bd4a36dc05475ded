# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded landscape: servers, services with their data, config store and the router fleet in one folder."""

from __future__ import annotations

import http.client
import json
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from . import programs
from .checker import Checker, Ids, Snapshot, Verdict
from .databases import Database, MariaDatabase, PostgresDatabase, SqliteDatabase, participants
from .keys import Certificates, Issuers
from .ledger import BYSTANDER, TENANT
from .processes import Process, Processes, free_port, module_command, module_environment
from .routers import PATIENCE, Fleet, ansible_environment, ansible_playbook
from .servers import HOST, MariaServer, PostgresServer, Server, start_all
from .spec import BY_NAME, SERVICES, Service, heads_for, rows_of
from .traffic import Traffic

SMALL_ROWS = 20_000
"""The most rows of MariaDB and SQLite databases: these kinds move rows in place, inside the window."""
ALL_SERVICES = tuple(service.name for service in SERVICES)
DATACENTER, CHANNEL = "us10", "stable"


@dataclass(frozen=True)
class Tenant:
    """A subdomain and its id."""

    subdomain: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Landscape:
    """One landscape; several can run side by side. ``with Landscape(folder) as landscape: …`` brings it up and takes it
    down.

    :param folder: an existing folder of its own, enterable for the servers' users (:func:`.processes.work_folder`).
    :param rows: the tenant's rows in each PostgreSQL database at least; MariaDB has at most 20,000, SQLite a quarter.
    :param strategies: service → table → strategy for tables that ``auto`` is not to choose for.
    :param services: names of the services to run; those whose server is not installed are left out.
    :param policy: what differs from the policy of the demo.
    :param hold_max: how long the routers hold a request.
    """

    def __init__(
        self,
        folder: Path,
        rows: int = 20_000,
        strategies: Mapping[str, Mapping[str, str]] | None = None,
        services: Sequence[str] = ALL_SERVICES,
        policy: Mapping[str, str] | None = None,
        hold_max: str = "20s",
    ) -> None:
        self.folder, self.rows = folder, rows
        self.source, self.target, self.bystander = Tenant("venezia"), Tenant("venezia-scp"), Tenant("roma")
        self.store_path = folder / "store"
        self.databases: dict[str, Database] = {}
        self.servers: dict[str, Server] = {}
        self.services: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self._names, self._strategies = services, strategies or {}
        self._policy, self._hold_max = policy or {}, hold_max
        self._logs = folder / "logs"
        self.processes = Processes(self._logs)
        self._baseline: dict[tuple[str, str], str] = {}
        self._heads: dict[tuple[str, str], int] = {}
        self._runs = 0
        self._ledgers: list[Path] = []

    # -- up and down
    # -----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start everything; on any error what was started is stopped again."""
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
            self._certificates, self._issuers = Certificates.make(self.secrets), Issuers(self.secrets)
            self.fleet = Fleet(self.folder, self.processes, self._hold_max)
            self._plan_databases()
            self._write_store()
            self._write_inventory()
            deploy = self.fleet.begin_deploy(self.inventory, self.environment)
            self._start_databases()
            self._start_services()
            self.fleet.end_deploy(deploy)
            self.fleet.start()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Stop every process; the folder stays."""
        self.processes.stop_all()

    def reset(self) -> None:
        """Set databases, store and routers back to the first state, whatever a migration left behind."""
        self.fleet.stop()
        self._ledgers.clear()
        self._write_store()
        for server in self.servers.values():
            if not server.running:
                server.start()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda database: database.reset(), self.databases.values()))
        self._start_services()
        self.fleet.start()

    def __enter__(self) -> Landscape:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # -- what tests and the demo use
    # -------------------------------------------------------------------------------------

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory" / "hosts.yml"

    @property
    def environment(self) -> dict[str, str]:
        """For playbooks and ad-hoc modules."""
        return ansible_environment(self.folder)

    @property
    def vars(self) -> dict[str, Any]:
        """``store``, ``routers``, ``participants``, ``policy``, ``health`` and ``log_dir`` as the modules take them."""
        return {
            "store": {"kind": "file", "path": str(self.store_path)},
            "routers": [router.option(self._certificates) for router in self.fleet.routers],
            "participants": participants(list(self.databases.values()), self._strategies),
            "policy": {"window_budget": "20s", "drain_timeout": "2s", "lease": "3s", "mode": "hold", **self._policy},
            "health": [
                {"url": f"http://{HOST}:{port}/{name}/health", "assert": "status == 'UP'", "timeout": "2m"}
                for name, port in self.ports.items()
            ],
            "log_dir": str(self.folder / "audit"),
        }

    def playbook(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of the collection's playbooks for the migration source → target."""
        extra = [
            "-e",
            f"migrate_db_from_tenant={self.source.subdomain}",
            "-e",
            f"migrate_db_to_tenant={self.target.subdomain}",
        ]
        return [str(ansible_playbook()), "-i", str(self.inventory), f"zdm.landscape.{name}", *extra, *arguments]

    def traffic(self, rate: float, chaos: bool = False, **config: Any) -> Traffic:
        """A new run of the load over all services and both routers.

        :param chaos: a 503 of a router is no failure.
        """
        self._runs += 1
        services = {
            name: {tenant: self._heads[tenant, name] for tenant in (TENANT, BYSTANDER)} for name in self.databases
        }
        both = [self.source.id, self.target.id]
        roma = {"tenant": BYSTANDER, "tenant_ids": [self.bystander.id]}
        credentials = [
            {
                "name": "source",
                "tenant": TENANT,
                "token": self._issuers.yaas_token(self.source.subdomain),
                "tenant_ids": both,
            },
            {
                "name": "target",
                "tenant": TENANT,
                "token": self._issuers.xsuaa_token(self.target.subdomain, self.target.id),
                "tenant_ids": both,
            },
            {
                "name": "bystander",
                "token": self._issuers.xsuaa_token(self.bystander.subdomain, self.bystander.id),
                **roma,
            },
        ]
        earlier = [str(path) for path in self._ledgers]
        options = {
            "earlier": earlier,
            "routers": self.fleet.addresses,
            "credentials": credentials,
            "services": services,
            "rate": rate,
            "run": self._runs,
            "chaos": chaos,
        }
        traffic = Traffic(self.processes, self.secrets, {**options, **config})
        self._ledgers.append(traffic.ledger)
        return traffic

    def token(self, tenant: Tenant) -> str:
        """A valid token of the XSUAA issuer."""
        return self._issuers.xsuaa_token(tenant.subdomain, tenant.id)

    def check(self, live: Tenant, traffic: Sequence[Traffic], twins: Collection[str] = ()) -> Verdict:
        """Compare the ledgers of all load runs since the last reset with the databases.

        :param live: the tenant whose id is canonical.
        :param twins: ``service.table`` of tables that keep rows of the other id during the transition.
        """
        retired = self.target if live == self.source else self.source
        checker = Checker(list(self.databases.values()), self._heads, self._baseline)
        return checker.check([run.ledger for run in traffic], Ids(live.id, retired.id, self.bystander.id), twins)

    def tenant_rows(self) -> dict[str, int]:
        """Service → rows that the tenant had at first."""
        return {name: rows_of(BY_NAME[name], self._heads[TENANT, name]) for name in self.databases}

    # -- parts
    # -----------------------------------------------------------------------------------------------------------

    def _plan_databases(self) -> None:
        maria = programs.mariadb()
        for name in self._names:
            service = BY_NAME[name]
            if service.kind == "postgresql":
                server = PostgresServer(f"postgresql-{name}", self.folder / f"postgresql-{name}", self.processes)
                self.servers[name], self.databases[name] = server, PostgresDatabase(service, server)
            elif service.kind == "sqlite":
                self.databases[name] = SqliteDatabase(service, self.folder / name)
            elif maria:
                maria_server = MariaServer("mariadb", self.folder / "mariadb", self.processes, maria)
                self.servers[name], self.databases[name] = maria_server, MariaDatabase(service, maria_server)
            else:
                continue
            self.ports[name] = free_port()
            heads = heads_for(service, self._rows_for(service))
            self._heads[TENANT, name], self._heads[BYSTANDER, name] = heads, max(2, heads // 4)

    def _rows_for(self, service: Service) -> int:
        return {"postgresql": self.rows, "mariadb": min(self.rows, SMALL_ROWS)}.get(
            service.kind, min(self.rows, SMALL_ROWS) // 4
        )

    def _start_databases(self) -> None:
        start_all(list(self.servers.values()))
        self._launch_services()
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._fill, self.databases.values()))

    def _fill(self, database: Database) -> None:
        name = database.service.name
        database.create()
        database.fill({self.source.id: self._heads[TENANT, name], self.bystander.id: self._heads[BYSTANDER, name]})
        for tenant, tenant_id in ((TENANT, self.source.id), (BYSTANDER, self.bystander.id)):
            self._baseline[tenant, name] = Snapshot(database, tenant_id).fingerprint(self._heads[tenant, name])
        database.keep_seed()

    def _start_services(self) -> None:
        """Start the services that do not run and wait until all are healthy."""
        self._launch_services()
        self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until every service and its database is well."""
        for name, process in self.services.items():
            process.wait_ready(lambda name=name: service_is_up(self.ports[name], name))  # type: ignore[misc]

    def _launch_services(self) -> None:
        for name, database in self.databases.items():
            if name in self.services:
                continue
            config = self.secrets / f"{name}.json"
            config.touch(0o600)
            config.write_text(json.dumps({"service": name, "port": self.ports[name], "database": database.address()}))
            self.services[name] = self.processes.start(
                f"service-{name}", module_command("service", str(config)), env=module_environment()
            )

    def _write_store(self) -> None:
        """The config store after phase 1: all tenants onboarded, the target mapped to the source."""
        shutil.rmtree(self.store_path, ignore_errors=True)
        for collection in ("tenants", "onboarded-tenants", "migrations", "claims"):
            (self.store_path / collection).mkdir(parents=True)
        mapping = {"mapToTenant": self.source.subdomain, "mapToTenantId": self.source.id}
        landscape = {
            "onboardWithMappingToTenant": self.source.subdomain,
            "onboardWithMappingToTenantId": self.source.id,
        }
        documents = {"tenants": {self.target.subdomain: landscape}, "onboarded-tenants": {}}
        for tenant in (self.source, self.target, self.bystander):
            body = {"id": tenant.id, "subdomain": tenant.subdomain, "datacenter": DATACENTER, "channel": CHANNEL}
            documents["onboarded-tenants"][tenant.subdomain] = {**body, **(mapping if tenant == self.target else {})}
        for collection, bodies in documents.items():
            for name, document in bodies.items():
                (self.store_path / collection / f"{name}.json").write_text(
                    json.dumps(document, indent=2, sort_keys=True) + "\n"
                )

    def _write_inventory(self) -> None:
        """Inventory and ``zdm_landscape``, as an operator writes them."""
        variables, routers = self.vars, self.fleet.routers
        here = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        hosts = {
            "zdm_controller": {"hosts": {"localhost": here}},
            "zdm_routers": {
                "hosts": {router.name: router.host_vars(self._certificates) for router in routers},
                "vars": self.fleet.group_vars(self.ports),
            },
        }
        policy = {key: value for key, value in variables["policy"].items() if key in ("window_budget", "drain_timeout")}
        zdm_landscape = {
            "name": "demo",
            "store": variables["store"],
            "router": {
                "kind": "haproxy",
                "group": "zdm_routers",
                "lease": variables["policy"]["lease"],
                "timeout": PATIENCE,
                "ca_file": str(self._certificates.authority),
                "cert_file": str(self._certificates.controller),
                "key_file": str(self._certificates.controller),
            },
            "issuers": self._issuers.describe(),
            **{key: variables[key] for key in ("participants", "health", "log_dir")},
            "policy": policy,
        }
        group_vars = self.inventory.parent / "group_vars" / "all" / "landscape.yml"
        group_vars.parent.mkdir(parents=True, exist_ok=True)
        self.inventory.parent.chmod(0o700)
        self.inventory.write_text(yaml.safe_dump({"all": {"children": hosts}}, sort_keys=False))
        group_vars.write_text(yaml.safe_dump({"zdm_landscape": zdm_landscape}, sort_keys=False))


def service_is_up(port: int, name: str) -> bool:
    """Whether a service says that it and its database are well."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", f"/{name}/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
