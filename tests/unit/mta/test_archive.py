# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives and extension descriptors: what is read from them, and what is refused with its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Unreachable
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import (
    check_selection,
    fingerprint,
    opened_archive,
    read_archive,
    read_extensions,
)
from ansible_collections.zdm.landscape.tests.cloud.mtar import write_mtar, zipped

DESCRIPTOR: dict[str, Any] = {
    "ID": "shop",
    "version": "1.2.3",
    "modules": [{"name": "srv"}, {"name": "web"}],
    "resources": [{"name": "db"}],
}


def test_an_archive_is_read(tmp_path: Path) -> None:
    archive = read_archive(str(write_mtar(tmp_path, DESCRIPTOR)))
    assert (archive.mta_id, archive.version, archive.modules, archive.resources) == (
        "shop",
        "1.2.3",
        ("srv", "web"),
        ("db",),
    )
    assert (archive.name, len(archive.digest), archive.md5) == ("shop_1.2.3.mtar", 64, archive.md5.upper())
    assert sorted(archive.facts()) == ["digest", "md5", "mta_id", "name", "path", "version"]
    with opened_archive(archive.path) as again:
        assert again.digest == archive.digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML, line 1"),
        ("- a", "is no mapping"),
        ("version: 1.0.0", "has no ID or no version"),
        ("ID: a", "has no ID or no version"),
        ("{ID: a, version: 1.0.0, modules: [srv]}", "has modules without a name"),
    ],
)
def test_a_wrong_descriptor_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.mtar"
    path.write_bytes(zipped({"META-INF/mtad.yaml": text}))
    with pytest.raises(InputError, match=message) as raised:
        read_archive(str(path))
    assert "a.mtar" in raised.value.message


def test_an_archive_from_a_url_is_remembered_by_its_url(tmp_path: Path) -> None:
    """Its file is gone when somebody wants to go back to it."""
    path = str(write_mtar(tmp_path, DESCRIPTOR))
    assert read_archive(path, "https://host.example/shop.mtar").facts()["path"] == "https://host.example/shop.mtar"
    assert read_archive(path, "~/shop.mtar").facts()["path"] == path


def test_urls_are_shown_without_their_secrets() -> None:
    with pytest.raises(Unreachable) as away, opened_archive("http://me:secret@127.0.0.1:9/a.mtar?sig=secret"):
        pass
    assert "secret" not in str(away.value)
    with (
        pytest.raises(InputError, match="does not end with .mtar"),
        opened_archive("https://host.example/a.zip?x=.mtar"),
    ):
        pass


def test_a_selection_must_be_in_the_descriptor(tmp_path: Path) -> None:
    archive = read_archive(str(write_mtar(tmp_path, DESCRIPTOR)))
    check_selection(archive, ["srv"], ["db"])
    with pytest.raises(InputError, match="x, y of modules are not in") as raised:
        check_selection(archive, ["x", "srv", "y"], [])
    assert raised.value.advice == "There are: srv, web."


def test_extension_descriptors_are_a_chain(tmp_path: Path) -> None:
    def extension(identity: str, extends: str) -> str:
        path = tmp_path / f"{identity}.mtaext"
        path.write_text(f"ID: {identity}\nextends: {extends}\n")
        return str(path)

    first, second = extension("prod", "shop"), extension("eu", "prod")
    assert [found.id for found in read_extensions([first, second], "shop")] == ["prod", "eu"]
    for paths, message in (
        ([second], "extends prod, which is neither shop"),
        ([first, first], "the ID prod"),
        ([str(tmp_path / "no")], "can't be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_extensions(paths, "shop")
    (tmp_path / "bad.mtaext").write_text("ID: x\n")
    with pytest.raises(InputError, match="no ID or no extends"):
        read_extensions([str(tmp_path / "bad.mtaext")], "shop")


def test_the_fingerprint_is_of_everything_that_a_deployment_brings(tmp_path: Path) -> None:
    archive = read_archive(str(write_mtar(tmp_path, DESCRIPTOR)))
    (tmp_path / "a.mtaext").write_text("ID: a\nextends: shop\n")
    extensions = read_extensions([str(tmp_path / "a.mtaext")], "shop")
    other = read_archive(str(write_mtar(tmp_path, {**DESCRIPTOR, "description": "other"})))
    marks = [
        fingerprint(archive, [], None, None),
        fingerprint(archive, extensions, None, None),
        fingerprint(archive, [], ["srv"], None),
        fingerprint(archive, [], None, ["srv"]),
        fingerprint(other, [], None, None),
    ]
    assert len(set(marks)) == len(marks)
    assert fingerprint(archive, [], ["web", "srv"], []) == fingerprint(archive, [], ["srv", "web"], None)
