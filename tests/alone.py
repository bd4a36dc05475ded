# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plugin of pytest that shows whether a test needs another one: ``./test --alone`` and ``./test --order reverse``.

Alone, every test has a fork of a process that has collected them and set up nothing; what it sets up is torn down
there.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from itertools import groupby

import pytest
from _pytest.runner import runtestprotocol

REVERSE, RANDOM = "reverse", "random"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("alone")
    group.addoption("--alone", action="store_true", help="every test in a process of its own")
    group.addoption("--order", choices=[REVERSE, RANDOM], help="of the modules, and of the tests in each")
    group.addoption("--order-seed", default="1", help="of the random order")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    modules = [list(tests) for _path, tests in groupby(items, lambda item: item.path)]
    if config.option.order == REVERSE:
        modules = [tests[::-1] for tests in modules[::-1]]
    elif config.option.order == RANDOM:
        chance = random.Random(config.option.order_seed)
        chance.shuffle(modules)
        for tests in modules:
            chance.shuffle(tests)
    items[:] = [test for tests in modules for test in tests]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if not item.config.option.alone:
        return None
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _forked(item):
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _forked(item: pytest.Item) -> list[pytest.TestReport]:
    """Run a test in a child; a child that dies is a failure."""
    hook, config = item.config.hook, item.config
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of a fork beside threads: xdist's own thread holds no lock that a test needs
        child = os.fork()
    if child == 0:
        code = 1
        try:
            reports = runtestprotocol(item, log=False, nextitem=None)
            with os.fdopen(writer, "w") as stream:
                json.dump(
                    [hook.pytest_report_to_serializable(config=config, report=report) for report in reports], stream
                )
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    _pid, status = os.waitpid(child, 0)
    if status == 0 and told:
        return [hook.pytest_report_from_serializable(config=config, data=data) for data in json.loads(told)]
    died = f"the process of the test ended with status {status}"
    return [pytest.TestReport(item.nodeid, item.location, {}, outcome="failed", longrepr=died, when="call")]
