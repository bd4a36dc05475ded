# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names under ``localhost`` lead to this machine (RFC 6761), which the C library's resolver does not know.

A Python that has this folder on its path (``PYTHONPATH``) imports the module when it starts.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

_look_up: Callable[..., Any] = socket.getaddrinfo


def loopback(host: Any, *args: Any, **kwargs: Any) -> Any:
    """As ``socket.getaddrinfo``."""
    return _look_up("127.0.0.1" if isinstance(host, str) and host.endswith(".localhost") else host, *args, **kwargs)


if __name__ == "sitecustomize":
    socket.getaddrinfo = loopback
