# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operation needs in the service before it starts: the archive, extension descriptors, secure parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Archive, Extension, extension_of
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.cloud_foundry import CloudFoundry
from ansible_collections.zdm.landscape.plugins.module_utils.mta.cloud.files import Files
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import Wanted, location_of
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.watch import Watch

SECURE_ID = "__mta.secure"
"""The extension descriptor whose parameters the service keeps encrypted."""
SECURE_SERVICE = "__mta-secure-"
"""The user-provided service with the key for them is called so, and by the MTA."""
_MB = 1_000_000


@dataclass
class Bring:
    """Uploads once in a run; what the service has already is not sent again."""

    cloud: CloudFoundry
    files: Files
    wanted: Wanted
    watch: Watch
    there: tuple[str, list[str]] | None = field(default=None, init=False)
    """Ids of the archive's parts, joined by commas, and of the extension descriptors."""

    def upload(self) -> None:
        """Bring everything.

        :raises Refused: the service takes it not.
        :raises Unreachable: it can't be uploaded; nothing was started.
        """
        archive, wanted = self.wanted.archive, self.wanted
        if archive is None:
            self.there = ("", [])
            return
        if wanted.skips_testing:
            self.watch.say(
                "Without a testing phase the idle applications can't be stopped before the switch: requests may fail"
                " for some seconds.",
                "WARNING",
            )
        parts = self._archive(archive)
        extensions = [*wanted.extensions, *([self._secure()] if wanted.params.get("secure_parameters") else [])]
        self.there = (parts, [self.files.ensure_content(each.name, each.content, each.md5) for each in extensions])

    def _archive(self, archive: Archive) -> str:
        if self.wanted.params.get("upload") == "service":
            self.watch.say(f"The deploy service fetches {archive.source}")
            params = self.wanted.params
            names = {"username": params.get("archive_username"), "password": params.get("archive_password")}
            credentials = {name: str(value) for name, value in names.items() if value}
            return self.files.fetch(location_of(params), credentials, archive.md5, self.watch.wait, self._told)
        self.watch.say(f"Uploading {archive.name}")
        return self.files.ensure(archive.path, archive.md5, self._told)

    def _told(self, done: int, size: int) -> None:
        self.watch.say(f"{done // _MB} {f'of {size // _MB} ' if size else ''}MB of the archive are there")

    def _secure(self) -> Extension:
        """The extension descriptor with the secure parameters, and the service with the key, as the plugin of the cf
        CLI makes them.
        """
        wanted = self.wanted
        self.cloud.ensure_key_service("-".join(filter(None, (f"{SECURE_SERVICE}{wanted.mta_id}", wanted.namespace))))
        body = {
            "_schema-version": "3.3",
            "ID": SECURE_ID,
            "extends": wanted.mta_id,
            "parameters": dict(wanted.params["secure_parameters"]),
        }
        return extension_of(f"{SECURE_ID}.mtaext", SECURE_ID, json.dumps(body).encode())  # which is YAML
