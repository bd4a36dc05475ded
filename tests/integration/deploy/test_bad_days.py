# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad days: lost answers, a busy or absent API, expired tokens, errors of an operation, other people's operations,
deadlines.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import (
    InputError,
    OutcomeUnknown,
    Refused,
    Timeout,
    Unreachable,
)
from ansible_collections.zdm.landscape.plugins.module_utils.http.tokens import grant
from ansible_collections.zdm.landscape.plugins.module_utils.http.web import Web
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.tokens import JWT_BEARER
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.document import whoami
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.result import DeploymentFailed
from ansible_collections.zdm.landscape.tests.cloud.api import cli_config
from ansible_collections.zdm.landscape.tests.cloud.standin import Answer
from ansible_collections.zdm.landscape.tests.integration.deploy.kit import MTA, Bench

START = r"/operations$"


@pytest.fixture(name="live")
def _live(bench: Bench) -> Bench:
    """Version 1.0.0 is live."""
    bench.standing()
    return bench


def started(bench: Bench) -> int:
    """Operations beside the first one."""
    return len(bench.operations()) - 1


def test_a_start_whose_answer_is_lost_is_adopted(live: Bench) -> None:
    live.cloud.faults.lose("POST", START)
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert (started(live), live.sent("POST", "/operations")) == (1, 1)
    assert "Looking whether it was started" in live.texts()


def test_a_start_that_never_arrived_is_sent_again_after_a_look(live: Bench) -> None:
    live.cloud.faults.lose("POST", START, executed=False)
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    assert started(live) == 1


@pytest.mark.parametrize(("status", "executed"), [(502, True), (504, False), (429, False)])
def test_a_busy_gateway_at_the_start(live: Bench, status: int, executed: bool) -> None:
    live.cloud.faults.answer("POST", START, Answer(status, "busy"), executed=executed)
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert started(live) == 1


def test_a_start_whose_operation_has_ended_before_it_is_looked_for(live: Bench) -> None:
    live.cloud.faults.lose("POST", START)
    assert live.run("deployed", "1.1.0", skip_testing_phase=True).outcome == "deployed"
    assert "can't be stopped before the switch" in live.texts()
    assert started(live) == 1


def test_two_operations_that_may_be_ours_are_refused(live: Bench) -> None:
    path = Path(live.archive("1.1.0"))
    file = live.cloud.upload(path.name, path.read_bytes())
    body = {"processType": "BLUE_GREEN_DEPLOY", "parameters": {"appArchiveId": file.id, "mtaId": MTA}}
    live.cloud.faults.lose("POST", START)
    original = live.cloud.controller.start

    def twice(given: dict[str, Any], user: str) -> Any:
        original(body, user)
        return original(given, user)

    live.cloud.controller.start = twice  # type: ignore[method-assign]
    with pytest.raises(Refused, match="2 operations may be ours") as refusal:
        live.run("testing", "1.1.0")
    assert "cf CLI" in refusal.value.advice
    assert not any("abort" in request.target for request in live.cloud.requests)


def test_an_upload_whose_answer_is_lost_is_found_by_its_digest(live: Bench) -> None:
    live.cloud.faults.lose("POST", "/files")
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert live.sent("POST", "/files") == 1


def test_the_network_goes_in_the_middle_of_the_upload(live: Bench) -> None:
    def bulky(descriptor: dict[str, Any]) -> None:
        descriptor["padding"] = [secrets.token_hex(32) for _number in range(2000)]

    archive = live.archive("1.1.0", bulky)
    with Cut(live.cloud.port, after=20_000) as cut:
        options = live.cloud.options(deploy_service=f"https://localhost:{cut.port}")
        with pytest.raises(Unreachable, match="can't be uploaded") as error:
            live.run("testing", archive=archive, options=options, attempts=2)
    assert "Nothing was started" in error.value.advice
    assert cut.cuts == 2
    assert (started(live), live.live_version()) == (0, "1.0.0")
    assert live.run("testing", archive=archive).outcome == "testing"


class Cut:
    """A wire to a port of this host that breaks when a connection has sent so many bytes."""

    def __init__(self, port: int, after: int) -> None:
        self._to, self._after, self.cuts = port, after, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Cut:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._copy, args=(server, client, 1 << 30), daemon=True).start()
            threading.Thread(target=self._copy, args=(client, server, self._after), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, limit: int) -> None:
        try:
            while limit > 0 and (block := source.recv(4096)):
                target.sendall(block)
                limit -= len(block)
            self.cuts += limit <= 0
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_resume_and_abort_whose_answers_are_lost(live: Bench) -> None:
    live.run("testing", "1.1.0")
    live.cloud.faults.lose("POST", "actionId=abort")
    assert live.run("aborted", mta_id=MTA).outcome == "aborted"
    live.cloud.faults.lose("POST", "actionId=resume", executed=False)
    live.cloud.faults.lose("POST", "actionId=resume")
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    assert live.sent("POST", "actionId=resume") == 2


def test_questions_are_repeated_as_the_api_wants_it(live: Bench) -> None:
    live.cloud.faults.answer("GET", "/v3/apps", Answer(503, "busy"), times=2)
    live.cloud.faults.answer("GET", "operations", Answer(429, "slow down", {"retry-after": "7"}))
    live.cloud.faults.lose("GET", "/v3/routes")
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert live.pauses == [0.01, 0.02, 0.01, 7.0]


def test_an_api_that_is_away_while_the_operation_runs(live: Bench) -> None:
    there = live.cloud.faults.hold_at("start mtx-idle")

    def away() -> None:
        there.wait()
        live.cloud.faults.answer("GET", "embed=messages", Answer(500, "down"), times=3)
        live.cloud.faults.release()

    thread = threading.Thread(target=away)
    thread.start()
    assert live.run("testing", "1.1.0", attempts=2).outcome == "testing"
    thread.join()
    assert "The operation goes on; asking again." in live.texts()


def test_a_token_that_expires_is_renewed_once(live: Bench) -> None:
    there = live.cloud.faults.hold_at("start mtx-idle")
    live.cloud.uaa.grants.clear()

    def expire() -> None:
        there.wait()
        live.cloud.uaa.expire()
        live.cloud.faults.release()

    thread = threading.Thread(target=expire)
    thread.start()
    assert live.run("testing", "1.1.0").outcome == "testing"
    thread.join()
    assert live.cloud.uaa.grants == ["password", "refresh_token"]


def test_a_given_token_that_expires_is_told(live: Bench) -> None:
    token = live.cloud.uaa.tokens("ci@example.com")["access_token"]
    assert live.run("testing", "1.1.0", options=live.cloud.options(token=f"bearer {token}")).outcome == "testing"
    live.cloud.uaa.expire()
    with pytest.raises(Refused, match="does not accept the token"):
        live.run("deployed", "1.1.0", options=live.cloud.options(token=token))


def test_the_login_of_the_cli_is_refreshed_and_kept(live: Bench) -> None:
    uaa, folder = live.cloud.uaa, live.folder / ".cf"
    folder.mkdir()
    file = folder / "config.json"
    file.write_text(cli_config(live.cloud.url, uaa.tokens("ci@example.com"), "my-org", "dev"))
    options = {"deploy_service": live.cloud.url, "ca_file": live.cloud.ca_file, "cf_home": str(live.folder)}
    uaa.expire()
    before = file.read_text()
    assert live.run("testing", "1.1.0", options=options).outcome == "testing"
    assert file.read_text() == before
    uaa.rotates = True
    uaa.expire()
    assert live.run("deployed", "1.1.0", options=options).outcome == "deployed"
    kept = json.loads(file.read_text())
    assert kept["RefreshToken"] != json.loads(before)["RefreshToken"]
    assert (kept["OrganizationFields"], file.stat().st_mode & 0o777) == ({"Name": "my-org"}, 0o600)
    assert live.run("deployed", "1.1.0", options=options).outcome == "unchanged"


def test_a_login_that_is_no_users_is_refused_before_the_upload(live: Bench) -> None:
    """The deploy service would look up the rights of nobody and answer with status 500."""
    client = {"client_id": "deployer", "client_secret": "secret of deployer"}
    with pytest.raises(InputError, match="its token is no user's"):
        live.run("testing", "1.1.0", options=live.cloud.options(**client))
    answer = Web(live.cloud.ca_file)
    form = {"grant_type": "client_credentials"}
    token = grant(answer, live.cloud.url, form, client["client_id"], client["client_secret"])["access_token"]
    with pytest.raises(InputError, match="of client deployer, and of no user"):
        live.run("testing", "1.1.0", options=live.cloud.options(token=token))
    assert live.sent("POST", "/files") == 0


@pytest.mark.parametrize("kind", ["passcode", "assertion"])
def test_logins_that_ci_has_are_renewed_by_their_refresh_token(live: Bench, kind: str) -> None:
    uaa = live.cloud.uaa
    value = uaa.passcode("ci@example.com") if kind == "passcode" else uaa.assertion("ci@example.com")
    live.cloud.faults.answer("GET", "/operations", Answer(401, {}))
    assert (
        live.run("testing", "1.1.0", options=live.cloud.options(**{kind: value})).operation["user"] == "ci@example.com"
    )
    assert uaa.grants[-2:] == [{"passcode": "password"}.get(kind, JWT_BEARER), "refresh_token"]
    if kind == "passcode":
        with pytest.raises(Refused, match="UAA gives no token"):
            live.run("testing", "1.1.0", options=live.cloud.options(passcode=value))


def test_a_session_that_ended_is_begun_anew(live: Bench) -> None:
    live.run("testing", "1.1.0")
    original = live.cloud.controller.start
    deployment, stack = live.deployment("aborted", mta_id=MTA)
    with stack:
        deployment._service.act("unknown", "abort")
        live.cloud.end_sessions()
        assert deployment.run().outcome == "aborted"
    assert live.cloud.controller.start == original


@pytest.mark.parametrize("kind", ["CONTENT", "INFRASTRUCTURE"])
def test_an_error_is_told_with_the_services_words_and_its_logs(live: Bench, kind: str) -> None:
    quota = "memory quota_exceeded: app requested more memory than available"
    live.cloud.faults.fail("approuter-idle", quota, kind)
    with pytest.raises(DeploymentFailed, match=quota) as failure:
        live.run("testing", "1.1.0", retries=0)
    assert any(quota in Path(log).read_text() for log in failure.value.details["logs"])
    assert ("infrastructure" in failure.value.message) is (kind == "INFRASTRUCTURE")
    assert (live.operations()[1].state, live.live_version()) == ("ERROR", "1.0.0")
    assert live.run("testing", "1.1.0", on_error="retry").outcome == "testing"
    assert started(live) == 1


def test_on_error_retry_retries_and_then_fails(live: Bench) -> None:
    live.cloud.faults.fail("mtx-idle", "no start", times=3)
    assert live.run("testing", "1.1.0", on_error="retry").outcome == "testing"
    live.run("aborted", mta_id=MTA, remove_leftovers=True)
    live.cloud.faults.fail("mtx-idle", "no start", times=9)
    with pytest.raises(DeploymentFailed, match="no start"):
        live.run("testing", "1.1.0", on_error="retry")


def test_on_error_abort_aborts_and_tells_why(live: Bench) -> None:
    live.cloud.faults.fail("mtx-idle", "no start")
    with pytest.raises(DeploymentFailed, match="is aborted: it has stopped with an error. .*no start") as failure:
        live.run("testing", "1.1.0", on_error="abort", remove_leftovers=True)
    assert failure.value.details["removed"] == ["mtx-idle"]
    assert failure.value.details["logs"]
    assert (live.operations()[1].state, live.live_version()) == ("ABORTED", "1.0.0")
    assert live.run("testing", "1.1.0").outcome == "testing"


def test_an_error_while_routes_are_switched_is_never_aborted_by_itself(live: Bench) -> None:
    live.run("testing", "1.1.0")
    live.cloud.faults.fail("switch mtx", "no route", times=4)
    with pytest.raises(DeploymentFailed, match="no route") as failure:
        live.run("deployed", "1.1.0", on_error="abort")
    assert "do not abort" in failure.value.advice
    assert live.operations()[1].state == "ERROR"
    assert live.run("deployed", "1.1.0", on_error="abort").outcome == "deployed"
    assert live.live_version() == "1.1.0"


def test_an_abort_while_routes_are_switched_waits_for_the_end(live: Bench) -> None:
    live.run("testing", "1.1.0")
    there = live.cloud.faults.hold_at("switch mtx")
    for state in ("deployed", "aborted"):
        with pytest.raises(Timeout, match="not reached"):
            live.run_out_of_time(there, state, "1.1.0")
    assert live.sent("POST", "actionId=abort") == 0
    live.cloud.faults.release()
    assert live.run("deployed", "1.1.0").outcome == "deployed"


def test_aborted_by_somebody_else_while_we_wait_and_between_two_runs(live: Bench) -> None:
    there = live.cloud.faults.hold_at("start mtx-idle")

    def abort() -> None:
        there.wait()
        live.cloud.controller.act(live.operations()[1].id, "abort")
        live.cloud.faults.release()

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(DeploymentFailed, match="aborted by somebody else"):
        live.run("testing", "1.1.0")
    thread.join()
    live.run("testing", "1.1.0")
    live.cloud.controller.act(live.operations()[2].id, "abort")
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert started(live) == 3


def test_aborted_by_somebody_else_while_routes_are_switched(live: Bench) -> None:
    live.run("testing", "1.1.0")
    there = live.cloud.faults.hold_at("switch approuter")

    def abort() -> None:
        there.wait()
        live.cloud.controller.act(live.operations()[1].id, "abort")
        live.cloud.faults.release()

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(DeploymentFailed, match="aborted by somebody else") as failure:
        live.run("deployed", "1.1.0")
    thread.join()
    assert "look which version answers; it has left approuter-idle, approuter-live, mtx-live" in failure.value.advice
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    assert sorted(live.cloud.space.apps) == ["approuter", "mtx"]


def test_an_operation_that_the_service_knows_no_longer(live: Bench) -> None:
    live.run("testing", "1.1.0")
    first = live.operations()[1].id
    live.cloud.controller.act(first, "abort")
    live.cloud.controller.forget(first)
    assert live.run("testing", "1.1.0").outcome == "testing"
    there = live.cloud.faults.hold_at("switch mtx")

    def forget() -> None:
        there.wait()
        live.cloud.controller.forget(live.operations()[1].id)
        live.cloud.faults.release()

    thread = threading.Thread(target=forget)
    thread.start()
    with pytest.raises(OutcomeUnknown, match="no longer"):
        live.run("deployed", "1.1.0")
    thread.join()


@pytest.mark.parametrize("state", ["testing", "deployed", "aborted"])
def test_somebody_elses_operation_is_never_touched(live: Bench, state: str) -> None:
    other = live.foreign()
    with pytest.raises(Refused, match=r"colleague@example.com, started 20.*not ours") as refusal:
        live.run(state, "1.1.0")
    assert other.id in refusal.value.message
    assert f"- cf deploy -i {other.id} -a resume, after cf stop of every application" in refusal.value.advice
    assert (other.state, live.sent("POST", "actionId"), started(live)) == ("ACTION_REQUIRED", 0, 1)


def test_somebody_elses_failed_operation_without_the_lock_is_in_nobodys_way(live: Bench) -> None:
    live.run("testing", "1.1.0")
    other = live.foreign()
    assert (other.state, other.messages[-1]["text"]) == (
        "ERROR",
        f'Conflicting process "{live.operations()[1].id}" found for MTA "{MTA}"',
    )
    assert live.run("deployed", "1.1.0").outcome == "deployed"
    assert live.run("testing", "1.2.0").outcome == "testing"
    assert other.state == "ERROR"


def test_another_archive_is_refused_while_ours_waits(live: Bench) -> None:
    live.run("testing", "1.1.0")
    for state in ("testing", "deployed", "aborted"):
        with pytest.raises(Refused, match="Another archive") as refusal:
            live.run(state, "1.2.0")
        assert "abort it with state aborted and its mta_id" in refusal.value.advice
        assert f"which the run {whoami()} has started" in refusal.value.message
    assert live.operations()[1].states == ["RUNNING", "ACTION_REQUIRED"]
    assert live.run("aborted", mta_id=MTA).outcome == "aborted"
    assert live.run("testing", "1.2.0").outcome == "testing"


def overdue(bench: Bench) -> None:
    """Let the testing phase have begun two hours ago."""
    (document,) = bench.store.list("deployments")
    body = document.body
    body["attempt"]["testing_since"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    bench.store.put("deployments", document.name, body, document.revision)


@pytest.mark.parametrize("state", ["testing", "deployed"])
def test_a_testing_phase_past_its_deadline_is_aborted(live: Bench, state: str) -> None:
    live.run("testing", "1.1.0")
    overdue(live)
    with pytest.raises(Timeout, match="its testing phase is longer than 1h") as failure:
        live.run(state, "1.1.0", remove_leftovers=True)
    assert failure.value.details["removed"] == ["approuter-idle", "mtx-idle"]
    assert (live.operations()[1].states[-1], live.live_version()) == ("ABORTED", "1.0.0")
    assert live.run("testing", "1.1.0").outcome == "testing"


def test_a_testing_phase_past_its_deadline_may_be_left(live: Bench) -> None:
    live.run("testing", "1.1.0")
    overdue(live)
    assert live.run("testing", "1.1.0", on_testing_deadline="leave").outcome == "testing"
    assert "longer than testing_deadline" in live.texts()
    assert live.run("deployed", "1.1.0", on_testing_deadline="leave").outcome == "deployed"


def test_a_run_out_of_time_is_gone_on_with(live: Bench) -> None:
    there = live.cloud.faults.hold_at("start mtx-idle")
    with pytest.raises(Timeout, match="not reached state testing") as timeout:
        live.run_out_of_time(there, "testing", "1.1.0")
    assert timeout.value.details["operation"]["state"] == "RUNNING"
    live.cloud.faults.release()
    assert live.run("testing", "1.1.0").outcome == "testing"
    assert started(live) == 1
