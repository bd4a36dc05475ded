# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load generator as its own process: ``python -m …load <configuration file>``; SIGTERM ends it.

Open loop: requests start at a fixed rate, whatever the answers do, and a latency counts from the moment a request was
due. Nothing is ever sent twice. A time-out, an answer other than 2xx or a wrong answer is a failure; with ``chaos`` a
503 of a router is allowed and counted apart.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .httpclient import Answer, HttpClient, HttpError
from .ledger import ACKNOWLEDGED, TENANT, UNKNOWN, LedgerWriter, Write, expectations, read_ledger
from .plan import Plan, Read, Wrong

TIMEOUT_S = 10.0
KEPT_FAILURES = 50


@dataclass(frozen=True)
class Credential:
    """A token, whose data it reaches, and the tenant ids under which the services may see it."""

    name: str
    tenant: str
    token: str
    tenant_ids: tuple[str, ...]


@dataclass
class Config:
    """What the load needs to know; read from a JSON file."""

    routers: list[tuple[str, int]]
    credentials: list[Credential]
    services: dict[str, dict[str, int]]
    """Service → tenant → number of its first items."""
    rate: float
    ledger: str
    progress: str
    run: int
    earlier: list[str] = field(default_factory=list)
    """Ledgers of earlier runs on the same data."""
    chaos: bool = False
    write_share: float = 0.4
    bystander_share: float = 0.2
    may_break: bool = False
    """Whether a connection to a router may break, as it does when the router is killed; counted apart, per router."""
    timeout_s: float = 0.0
    """After which an answer counts as none; 0: :data:`TIMEOUT_S`."""

    @classmethod
    def read(cls, path: Path) -> Config:
        raw = json.loads(path.read_text())
        raw["credentials"] = [
            Credential(**{**item, "tenant_ids": tuple(item["tenant_ids"])}) for item in raw["credentials"]
        ]
        raw["routers"] = [tuple(address) for address in raw["routers"]]
        return cls(**raw)


@dataclass(frozen=True)
class Sample:
    """One answered request: when it was due (Unix time), how long it took, whose it was, how long the router held it
    (``None``: not).
    """

    due_ms: float
    latency_ms: float
    credential: str
    held_ms: float | None


@dataclass
class Failure:
    at_ms: int
    credential: str
    request: str
    what: str


@dataclass
class Counts:
    requests: int = 0
    reads: int = 0
    writes: int = 0
    failed: int = 0
    refused: int = 0
    """503 of a router, allowed in chaos mode only."""
    unknown: int = 0
    """Writes that may or may not have happened."""
    broken: dict[str, int] = field(default_factory=dict)
    """Router → requests that found no connection to it or lost theirs; allowed on demand only."""
    bystander_requests: int = 0
    bystander_failed: int = 0


@dataclass
class Report:
    """What the load saw from first to last request."""

    counts: Counts = field(default_factory=Counts)
    failures: list[Failure] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def summary(self, seconds: float) -> dict[str, Any]:
        ordinary = sorted(sample.latency_ms for sample in self.samples if sample.held_ms is None)
        held = [sample.held_ms for sample in self.samples if sample.held_ms is not None]
        other = [sample.latency_ms for sample in self.samples if sample.credential == "bystander"]
        return {
            **asdict(self.counts),
            "seconds": round(seconds, 1),
            "rate": round(self.counts.requests / seconds, 1) if seconds else 0.0,
            "held_requests": len(held),
            "max_held_ms": max(held, default=0.0),
            "p50_ms": _quantile(ordinary, 0.5),
            "p99_ms": _quantile(ordinary, 0.99),
            "max_ms": round(max((sample.latency_ms for sample in self.samples), default=0.0), 1),
            "bystander_p99_ms": _quantile(sorted(other), 0.99),
            "bystander_max_ms": round(max(other, default=0.0), 1),
            "failures": [asdict(failure) for failure in self.failures],
        }


def _quantile(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1) if ordered else 0.0


class Load:
    """Sends the requests and judges the answers."""

    def __init__(self, config: Config, ledger: LedgerWriter) -> None:
        self._config, self._ledger = config, ledger
        self._clients = {f"{host}:{port}": HttpClient(host, port) for host, port in config.routers}
        self._chance = random.Random(config.run)
        heads = {
            (tenant, service): count
            for service, tenants in config.services.items()
            for tenant, count in tenants.items()
        }
        self._plans = {
            key: Plan(*key, heads[key], config.run, self._chance, left.items)
            for key, left in expectations(read_ledger(map(Path, config.earlier)), heads).items()
        }
        self._turn = 0
        self.report = Report()
        self.stopping = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Send requests until told to stop; wait for the last answers; return the summary."""
        await self._baseline()
        loop = asyncio.get_running_loop()
        progress = loop.create_task(self._tell_progress())
        under_way: set[asyncio.Task[None]] = set()
        start, number = loop.time(), 0
        while not self.stopping.is_set():
            due = start + number / self._config.rate
            if (delay := due - loop.time()) > 0:
                await asyncio.sleep(delay)
            task = loop.create_task(self._one(due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
        seconds = loop.time() - start
        await asyncio.gather(*under_way)
        progress.cancel()
        self._write_progress()
        for client in self._clients.values():
            client.close()
        return self.report.summary(seconds)

    async def _baseline(self) -> None:
        """Read each service's number of writes before the first one of this run."""
        client = next(iter(self._clients.values()))
        for (tenant, _service), plan in self._plans.items():
            credential = next(item for item in self._config.credentials if item.tenant == tenant)
            answer = await client.request(
                "GET", plan.baseline_path(), {"authorization": f"Bearer {credential.token}"}, None, TIMEOUT_S
            )
            if answer.status != 200:
                raise SystemExit(f"GET {plan.baseline_path()} answered {answer.status}: {answer.body[:200]!r}")
            plan.start_from(answer.json()["count"])

    async def _one(self, due: float) -> None:
        """One request from choice to verdict."""
        credential = self._choose_credential()
        _tenant, service = self._chance.choice([key for key in self._plans if key[0] == credential.tenant])
        plan = self._plans[credential.tenant, service]
        write = plan.next_write() if self._chance.random() < self._config.write_share else None
        read = None if write else plan.next_read()
        request = f"{write.operation} {service} item {write.number}" if write else f"read {read.path if read else ''}"
        self._count(credential, write)
        router = self._next_router()
        recorded = False
        try:
            answer = await self._send(self._clients[router], credential, service, write, read)
            self._sample(due, credential, answer)
            if write and answer.status == 200:
                self._ledger.record(write, ACKNOWLEDGED)
                recorded = True
            self._judge(credential, plan, write, read, answer)
        except (HttpError, Wrong, ValueError, KeyError, TypeError) as error:
            if self._config.may_break and isinstance(error, HttpError) and not error.silence:
                self.report.counts.broken[router] = self.report.counts.broken.get(router, 0) + 1
            else:
                self._fail(credential, request, f"{type(error).__name__}: {error}")
        finally:
            if write and not recorded:
                self._ledger.record(write, UNKNOWN)
                self.report.counts.unknown += 1

    def _choose_credential(self) -> Credential:
        tenant_credentials = [item for item in self._config.credentials if item.tenant == TENANT]
        others = [item for item in self._config.credentials if item.tenant != TENANT]
        return self._chance.choice(
            others if others and self._chance.random() < self._config.bystander_share else tenant_credentials
        )

    def _next_router(self) -> str:
        self._turn += 1
        return list(self._clients)[self._turn % len(self._clients)]

    async def _send(
        self, client: HttpClient, credential: Credential, service: str, write: Write | None, read: Read | None
    ) -> Answer:
        headers = {"authorization": f"Bearer {credential.token}"}
        if read is not None:
            return await client.request("GET", read.path, headers, None, self._config.timeout_s or TIMEOUT_S)
        assert write is not None
        body = {key: getattr(write, key) for key in ("write_id", "bucket", "operation", "item", "number", "amount")}
        return await client.request("POST", f"/{service}/writes", headers, body, self._config.timeout_s or TIMEOUT_S)

    def _judge(
        self, credential: Credential, plan: Plan, write: Write | None, read: Read | None, answer: Answer
    ) -> None:
        """Compare an answer with what it must be.

        :raises Wrong: when it is a failure.
        """
        if answer.status == 503 and self._config.chaos and "x-router" in answer.headers:
            self.report.counts.refused += 1
            return
        if answer.status != 200:
            raise Wrong(
                f"answer {answer.status} {answer.headers.get('x-router', '')}:"
                f" {answer.body[:200].decode(errors='replace')}"
            )
        body = answer.json()
        if write:
            plan.acknowledged(write, body)
        elif read:
            read.check(body)
        if body["tenant"] not in credential.tenant_ids:
            raise Wrong(f"served under the id {body['tenant']}")

    def _count(self, credential: Credential, write: Write | None) -> None:
        counts = self.report.counts
        counts.requests += 1
        counts.writes += write is not None
        counts.reads += write is None
        counts.bystander_requests += credential.tenant != TENANT

    def _sample(self, due: float, credential: Credential, answer: Answer) -> None:
        latency = (asyncio.get_running_loop().time() - due) * 1000
        held = answer.headers.get("x-router-held")
        self.report.samples.append(
            Sample(
                time.time() * 1000 - latency, round(latency, 2), credential.name, None if held is None else float(held)
            )
        )

    def _fail(self, credential: Credential, request: str, what: str) -> None:
        self.report.counts.failed += 1
        self.report.counts.bystander_failed += credential.tenant != TENANT
        if len(self.report.failures) < KEPT_FAILURES:
            self.report.failures.append(Failure(int(time.time() * 1000), credential.name, request, what))

    async def _tell_progress(self) -> None:
        while True:
            self._write_progress()
            await asyncio.sleep(0.1)

    def _write_progress(self) -> None:
        path = Path(self._config.progress)
        draft = path.with_suffix(".new")
        draft.write_text(
            json.dumps({**asdict(self.report.counts), "failures": [asdict(item) for item in self.report.failures[-3:]]})
        )
        draft.replace(path)


async def _main(config: Config) -> dict[str, Any]:
    with LedgerWriter(Path(config.ledger)) as ledger:
        load = Load(config, ledger)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, load.stopping.set)
        return await load.run()


def main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_main(Config.read(Path(sys.argv[1]))))))


if __name__ == "__main__":
    main()
