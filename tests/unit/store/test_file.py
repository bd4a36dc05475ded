# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file store: compare-and-set that holds between processes, and errors that name the document."""

from __future__ import annotations

import json
import multiprocessing
import resource
from pathlib import Path

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Conflict, InputError, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.store.base import MIGRATIONS, ONBOARDED
from ansible_collections.zdm.landscape.plugins.module_utils.store.file import FileStore


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


def test_a_document_is_written_read_listed_and_deleted(store: FileStore) -> None:
    assert store.get(ONBOARDED, "venezia") is None
    written = store.put(ONBOARDED, "venezia", {"id": "guid-a"}, None)
    assert store.get(ONBOARDED, "venezia") == written
    assert [document.name for document in store.list(ONBOARDED)] == ["venezia"]
    store.delete(ONBOARDED, "venezia", written.revision)
    assert store.get(ONBOARDED, "venezia") is None
    assert store.list(ONBOARDED) == []


def test_documents_are_listed_by_name(store: FileStore) -> None:
    for name in ("venezia-scp", "venezia", "venezia.x"):
        store.put(ONBOARDED, name, {}, None)
    assert [document.name for document in store.list(ONBOARDED)] == ["venezia", "venezia-scp", "venezia.x"]


def test_a_stale_revision_changes_nothing(store: FileStore) -> None:
    first = store.put(ONBOARDED, "venezia", {"n": 1}, None)
    second = store.put(ONBOARDED, "venezia", {"n": 2}, first.revision)
    with pytest.raises(Conflict, match="changed by somebody else"):
        store.put(ONBOARDED, "venezia", {"n": 3}, first.revision)
    with pytest.raises(Conflict, match="already exists"):
        store.put(ONBOARDED, "venezia", {"n": 3}, None)
    with pytest.raises(Conflict):
        store.delete(ONBOARDED, "venezia", first.revision)
    assert store.get(ONBOARDED, "venezia") == second


def test_writing_the_same_text_again_is_a_new_revision(store: FileStore) -> None:
    first = store.put(ONBOARDED, "venezia", {"n": 1}, None)
    second = store.put(ONBOARDED, "venezia", {"n": 1}, first.revision)
    assert first.revision != second.revision


def test_a_hand_edit_is_a_new_revision(store: FileStore, tmp_path: Path) -> None:
    first = store.put(ONBOARDED, "venezia", {"n": 1}, None)
    (tmp_path / ONBOARDED / "venezia.json").write_text(json.dumps({"n": 5}))
    with pytest.raises(Conflict):
        store.put(ONBOARDED, "venezia", {"n": 2}, first.revision)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a\nb", ".hidden", "-x", "a" * 129])
def test_an_unsafe_name_is_refused(store: FileStore, name: str) -> None:
    with pytest.raises(InputError):
        store.get(ONBOARDED, name)


def test_a_missing_directory_is_not_an_empty_landscape(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="does not exist"):
        FileStore(tmp_path / "typo").list(ONBOARDED)


def test_broken_json_names_the_document(store: FileStore, tmp_path: Path) -> None:
    store.put(MIGRATIONS, "a--b", {}, None)
    (tmp_path / MIGRATIONS / "a--b.json").write_text("{")
    with pytest.raises(Unreachable, match="migrations/a--b is not valid JSON"):
        store.get(MIGRATIONS, "a--b")


def _increment(path: str, times: int) -> None:
    store = FileStore(path)
    done = 0
    while done < times:
        document = store.get(ONBOARDED, "counter")
        assert document is not None
        try:
            store.put(ONBOARDED, "counter", {"n": document.body["n"] + 1}, document.revision)
        except Conflict:
            continue
        done += 1


def test_concurrent_processes_lose_no_update(store: FileStore, tmp_path: Path) -> None:
    store.put(ONBOARDED, "counter", {"n": 0}, None)
    workers = [
        multiprocessing.get_context("spawn").Process(target=_increment, args=(str(tmp_path), 25))
        for _worker in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    document = store.get(ONBOARDED, "counter")
    assert document is not None
    assert document.body == {"n": 75}


def _write_large(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    store = FileStore(path)
    document = store.get(MIGRATIONS, "a--b")
    assert document is not None
    with pytest.raises(Unreachable, match="migrations/a--b can't be written"):
        store.put(MIGRATIONS, "a--b", {"text": "x" * 100_000}, document.revision)


def test_a_write_that_finds_no_space_leaves_the_old_document(store: FileStore, tmp_path: Path) -> None:
    before = store.put(MIGRATIONS, "a--b", {"n": 1}, None)
    worker = multiprocessing.get_context("spawn").Process(target=_write_large, args=(str(tmp_path),))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert store.get(MIGRATIONS, "a--b") == before
    assert [file.name for file in (tmp_path / MIGRATIONS).iterdir()] == ["a--b.json"]
