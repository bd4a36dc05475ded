# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server of archives."""

from __future__ import annotations

import base64
from pathlib import Path

from ansible_collections.zdm.landscape.tests.cloud.standin import Answer, Request, StandIn


class FileServer(StandIn):
    """Serves one archive to whoever knows the password; ``sent`` says how often."""

    def __init__(self, certificate: str, archive: str) -> None:
        super().__init__(certificate)
        self.content, self.sent = Path(archive).read_bytes(), 0

    def answer(self, request: Request) -> Answer:
        if request.headers.get("authorization") != "Basic " + base64.b64encode(b"me:secret").decode():
            return Answer(401, "who are you")
        self.sent += 1
        return Answer(200, self.content)
