# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the application's service behind the approuter: answers with what the approuter's token says of the
user.

``/api/…`` needs a valid token of the XSUAA, ``/public/…`` none. ``?wait_ms=`` keeps the request in flight for so long.
"""

from __future__ import annotations

import time

import jwt

from .standin import Answer, Request, StandIn
from .xsuaa import Xsuaa


class Backend(StandIn):
    """One version of the service; every answer names it.

    :param version: for example ``1.0.0``.
    """

    def __init__(self, xsuaa: Xsuaa, version: str) -> None:
        super().__init__()
        self._xsuaa, self.version = xsuaa, version

    def answer(self, request: Request) -> Answer:
        found = {"version": self.version, "method": request.method, "path": request.path}
        if not request.path.startswith("/public/"):
            try:
                claims = self._xsuaa.claims(request.bearer)
            except jwt.InvalidTokenError as error:
                return Answer(401, {"error": str(error)})
            found |= {"user": claims.get("user_name", ""), "zone": claims["zid"]}
        time.sleep(int(request.query.get("wait_ms", "0")) / 1000)
        return Answer(200, found)
