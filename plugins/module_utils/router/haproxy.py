# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client of one HAProxy router through its master's command line (HAProxy management guide, "Master CLI").

Commands go to the current worker (``@1``) and to workers that a reload left behind (``@!<pid>``): those still answer
requests. The worker's own commands (``zdm ...``) are the role's Lua file; an answer that is unknown is never a result.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    Refused,
    Superseded,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.core.names import valid_name
from ansible_collections.zdm.landscape.plugins.module_utils.router.base import (
    EPOCH_MAX,
    HOLD,
    REJECT,
    Block,
    Router,
    RouterState,
    Usage,
)
from ansible_collections.zdm.landscape.plugins.module_utils.router.cli import Endpoint, MasterCLI
from ansible_collections.zdm.landscape.plugins.module_utils.router.entries import chain, leads_to_nobody

MAPS = ("onboarded", "subdomains", "override", "block", "decommissioned")
PROTOCOL = "1"
"""The format that ``zdm state`` must answer with."""

_BATCH = 40
"""Ids per command: HAProxy drops arguments beyond 64 without a word."""
LEASE_MIN_MS = 100
_SOFT_S = 0.011
_SOFT_ATTEMPTS = 100
_MIGRATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VALUE = re.compile(r"[A-Za-z0-9._/|-]{1,200}")
_EXPIRE_MS = 24 * 86_400_000
"""The life of a counter in the router's table; its rest tells when it was last used."""


@dataclass(frozen=True)
class Workers:
    """Process ids of one router: the worker that takes new requests, and those that only finish old ones."""

    current: int
    old: tuple[int, ...]
    version: str


class HAProxyRouter(Router):
    """One HAProxy router with the role ``landscape_router``'s configuration.

    :param socket: path of the master's unix socket; or
    :param host: and *port* of its mutual-TLS endpoint, with *ca_file* (who signed the router's certificate),
        *cert_file* and *key_file* (ours; the key may stand in *cert_file*) and *server_name* when the certificate names
        another host.
    :param timeout_ms: for one batch of commands.
    :raises InputError: neither or both endpoints are given, or TLS without its files.
    """

    def __init__(
        self,
        name: str,
        socket: str | None = None,
        host: str | None = None,
        port: int | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        server_name: str | None = None,
        timeout_ms: int = 2000,
    ) -> None:
        endpoint = Endpoint(socket, host, port, ca_file, cert_file, key_file, server_name)
        endpoint.check(name)
        self.name = name
        self._cli = MasterCLI(name, endpoint, timeout_ms)

    def take_over(self, migration: str, epoch: int) -> None:
        self._write([f"epoch {_head(migration, epoch)}"], [0])

    def lease(self, migration: str, epoch: int, ids: Iterable[str], lease_ms: int, mode: str) -> None:
        if lease_ms < LEASE_MIN_MS:
            raise InputError(
                f"A lease of {lease_ms} ms is too short to come into force.", f"Give at least {LEASE_MIN_MS} ms."
            )
        self._block(f"lease {_head(migration, epoch)} {_mode(mode)} {int(lease_ms)}", ids)

    def close(self, migration: str, epoch: int, ids: Iterable[str], mode: str) -> None:
        self._block(f"close {_head(migration, epoch)} {_mode(mode)}", ids)

    def release(self, migration: str, epoch: int, ids: Iterable[str]) -> None:
        self._write_ids(f"release {_head(migration, epoch)}", ids)

    def map(self, migration: str, epoch: int, overrides: Mapping[str, str | None]) -> None:
        entries = {
            valid_name(key, "id"): value if value is None else valid_name(value, "canonical id")
            for key, value in overrides.items()
        }
        self._write_entries(f"map {_head(migration, epoch)}", entries)

    def edit(self, table: str, entries: Mapping[str, str | None]) -> None:
        self._write_entries(f"edit {table}", entries)

    def load(self, table: str, entries: Mapping[str, str | None]) -> None:
        """A starting worker's last look at the store; keys that were edited live since the start keep their value."""
        self._write_entries(f"load {table}", entries, also_old=False)

    def set_ready(self) -> None:
        """Let a worker that has been loaded serve the requests that it held."""
        self._write(["ready"], [0], also_old=False)

    def in_flight(self, ids: Iterable[str]) -> int:
        commands = [
            f"inflight {' '.join(batch)}" for batch in _batches(valid_name(tenant_id, "id") for tenant_id in ids)
        ]
        workers, answers = self._current(commands)
        for pid in workers.old:
            answers += self._old(pid, commands) or []
        return sum(self._count(answer) for answer in answers)

    def disconnect(self) -> None:
        """Close idle connections; the next command opens a new one."""
        self._cli.disconnect()

    def workers(self) -> Workers:
        """Which processes serve."""
        return self._workers(self._cli.ask(["show proc"])[0])

    def state(self, usage: bool = False) -> RouterState:
        commands = ["show proc", "@1 zdm state", *(f"@1 show map maps/{name}.map" for name in MAPS)]
        tables = ["inflight", "held"] if usage else []
        answers = self._cli.ask(commands + [f"@1 show table {name}" for name in tables])
        workers = self._workers(answers[0])
        facts, epochs = self._facts(answers[1])
        maps = {name: self._map(answer) for name, answer in zip(MAPS, answers[2:], strict=False)}
        blocks = {key: self._block_of(value) for key, value in maps["block"].items()}
        rows = [self._table(name, answer) for name, answer in zip(tables, answers[len(commands) :], strict=True)]
        return RouterState(
            name=self.name,
            version=workers.version,
            ready=facts["ready"] == 1,
            clock_ms=facts["clock"],
            old_workers=len(workers.old),
            epochs=epochs,
            blocks={key: block for key, block in blocks.items() if block.until_ms > facts["clock"]},
            overrides=maps["override"],
            onboarded=maps["onboarded"],
            subdomains=maps["subdomains"],
            decommissioned=frozenset(maps["decommissioned"]),
            usage=_usage(*rows) if usage else {},
        )

    # -- writing
    # ---------------------------------------------------------------------------------------------------------

    def _block(self, head: str, ids: Iterable[str]) -> None:
        """Repeat a blocking command until no block is soft any more.

        A soft block holds or refuses at gate 1 alone: what is between the gates at that moment passes, counted, instead
        of being refused. It is made hard by the same command some milliseconds later.
        """
        every = list(ids)
        for _attempt in range(_SOFT_ATTEMPTS):
            try:
                return self._write_ids(head, every)
            except _StillSoft:
                time.sleep(_SOFT_S)
        raise self._cli.unreachable("a block does not take effect", "answer")

    def _write_ids(self, head: str, ids: Iterable[str]) -> None:
        batches = _batches(valid_name(tenant_id, "id") for tenant_id in ids)
        self._write([f"{head} {' '.join(batch)}" for batch in batches], [len(batch) for batch in batches])

    def _write_entries(self, head: str, entries: Mapping[str, str | None], also_old: bool = True) -> None:
        batches = _batches(_entry(key, value) for key, value in entries.items())
        self._write([f"{head} {' '.join(batch)}" for batch in batches], [len(batch) for batch in batches], also_old)

    def _write(self, commands: Sequence[str], counts: Sequence[int], also_old: bool = True) -> None:
        """Send commands to the current worker and, unless they are a start's, to old ones, whose parked requests look
        at the same maps.
        """
        if not commands:
            return
        workers, answers = self._current(commands)
        for answer, count in zip(answers, counts, strict=True):
            self._expect(answer, count)
        for pid in workers.old if also_old else ():
            for answer, count in zip(self._old(pid, commands) or [], counts, strict=False):
                self._expect(answer, count)

    def _expect(self, answer: str, count: int) -> None:
        if self._count(answer) != count:
            raise self._cli.not_understood(answer)

    def _count(self, answer: str) -> int:
        """The number in ``ok <n>``; every other answer becomes the error that it stands for."""
        word, *rest = answer.split() or [""]
        if word == "ok" and len(rest) == 1 and rest[0].isdecimal():
            return int(rest[0])
        if word == "superseded" and len(rest) == 2:
            raise Superseded(
                f"Router {self.name} has seen epoch {rest[1]} of migration {rest[0]}: a newer run has taken over.",
                "Stop; look at the newer run's result.",
                router=self.name,
                migration=rest[0],
                epoch=int(rest[1]),
            )
        if word == "owned" and len(rest) == 2:
            raise Refused(
                f"Router {self.name} refuses: tenant id {rest[0]} is blocked by migration {rest[1]}.",
                f"Finish or undo migration {rest[1]} first.",
                router=self.name,
                id=rest[0],
                migration=rest[1],
            )
        if word == "chain" and len(rest) == 3:
            raise chain(self.name, *rest)
        if word == "nobody" and len(rest) == 2:
            raise leads_to_nobody(self.name, *rest)
        if word == "soft" and len(rest) == 1:
            raise _StillSoft
        raise self._cli.not_understood(answer)

    def _current(self, commands: Sequence[str]) -> tuple[Workers, list[str]]:
        answers = self._cli.ask(["show proc", *(f"@1 zdm {command}" for command in commands)])
        return self._workers(answers[0]), answers[1:]

    def _old(self, pid: int, commands: Sequence[str]) -> list[str] | None:
        """Answers of a worker that a reload left behind; ``None`` when it has ended meanwhile."""
        try:
            return self._cli.ask([f"@!{pid} zdm {command}" for command in commands], keep=False)
        except Unreachable:
            if pid in self.workers().old:
                raise
            return None

    # -- reading
    # ---------------------------------------------------------------------------------------------------------

    def _workers(self, answer: str) -> Workers:
        section, version, found = "", "", {"# workers": [0][:0], "# old workers": [0][:0]}
        for line in answer.splitlines():
            columns = line.split()
            if line.startswith("#"):
                section = line.strip()
            elif columns and columns[0].isdecimal():
                if "master" in columns[1:2]:
                    version = columns[-1]
                elif section in found:
                    found[section].append(int(columns[0]))
        if len(found["# workers"]) != 1 or not version:
            raise self._cli.not_understood(answer)
        return Workers(found["# workers"][0], tuple(found["# old workers"]), version)

    def _facts(self, answer: str) -> tuple[dict[str, int], dict[str, int]]:
        facts: dict[str, int] = {}
        epochs: dict[str, int] = {}
        lines = answer.splitlines()
        if lines[:1] != [f"ok {PROTOCOL}"]:
            raise self._cli.not_understood(answer)
        for line in lines[1:]:
            word, *rest = line.split() or [""]
            if word == "epoch" and len(rest) == 2 and rest[1].isdecimal():
                epochs[rest[0]] = int(rest[1])
            elif len(rest) == 1 and rest[0].isdecimal():
                facts[word] = int(rest[0])
            else:
                raise self._cli.not_understood(answer)
        if not {"ready", "clock"} <= facts.keys():
            raise self._cli.not_understood(answer)
        return facts, epochs

    def _map(self, answer: str) -> dict[str, str]:
        result = {}
        for line in answer.splitlines():
            columns = line.split(" ")
            if len(columns) != 3 or not columns[0].startswith("0x"):
                raise self._cli.not_understood(line)
            result[columns[1]] = columns[2]
        return result

    def _table(self, name: str, answer: str) -> dict[str, dict[str, int]]:
        head, *lines = answer.splitlines() or [""]
        if not head.startswith(f"# table: {name}, "):
            raise self._cli.not_understood(answer)
        result = {}
        for line in lines:
            fields = dict(part.split("=", 1) for part in line.split()[1:])
            key = fields.pop("key")
            result[key] = {field: int(value) for field, value in fields.items()}
        return result

    def _block_of(self, value: str) -> Block:
        mode, until, migration = [*value.split("|"), "", ""][:3]
        if mode not in (HOLD, REJECT) or not until.isdecimal():
            raise self._cli.not_understood(value)
        return Block(mode, int(until), migration)


class _StillSoft(Exception):
    """A block is not hard yet; repeat the command."""


def _head(migration: str, epoch: int) -> str:
    if not _MIGRATION.fullmatch(migration):
        raise InputError(f"{migration!r} is no valid key of a migration.", "Use <source>--<target>.")
    if not 0 <= epoch <= EPOCH_MAX:
        raise InputError(
            f"{epoch} is no epoch of migration {migration}.", f"Give a whole number from 0 to {EPOCH_MAX}."
        )
    return f"{migration} {epoch}"


def _mode(mode: str) -> str:
    if mode not in (HOLD, REJECT):
        raise InputError(f"{mode!r} is no mode of a block.", f"Use {HOLD} or {REJECT}.")
    return mode


def _entry(key: str, value: str | None) -> str:
    if not _MIGRATION.fullmatch(key) or not (value is None or _VALUE.fullmatch(value)):
        raise InputError(
            f"{key!r} → {value!r} is no valid entry of a router's map.",
            "Use letters, digits, dots, underscores and hyphens.",
        )
    return f"{key}={'-' if value is None else value}"


def _batches(items: Iterable[str]) -> list[list[str]]:
    every = list(items)
    return [every[start : start + _BATCH] for start in range(0, len(every), _BATCH)]


def _usage(inflight: Mapping[str, Mapping[str, int]], held: Mapping[str, Mapping[str, int]]) -> dict[str, Usage]:
    result = {}
    for tenant_id in sorted({*inflight, *held}):
        counted = inflight.get(tenant_id, {})
        passed, in_flight = counted.get("gpc1", 0), counted.get("conn_cur", 0)
        result[tenant_id] = Usage(
            requests=passed,
            in_flight=in_flight,
            held=held.get(tenant_id, {}).get("conn_cur", 0),
            abandoned=max(0, passed - counted.get("gpc0", 0) - in_flight),
            idle_ms=_EXPIRE_MS - counted["exp"] if passed and "exp" in counted else None,
        )
    return result
