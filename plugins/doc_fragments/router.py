# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group ROUTERS."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  routers:
    description: Every router of the landscape. Each is reached by its unix socket, or by mutual TLS.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The router's name in messages and results.
        type: str
        required: true
      socket:
        description: Path of the router's runtime socket. Excludes O(routers[].host).
        type: path
      host:
        description: Host of the router's mutual-TLS control endpoint. Needs O(routers[].port), O(routers[].ca_file) and
          O(routers[].cert_file).
        type: str
      port:
        description: Port of the control endpoint.
        type: int
      ca_file:
        description: PEM file with the certificate authority that signed the endpoint's certificate.
        type: path
      cert_file:
        description: PEM file with the client certificate; it may contain the key as well.
        type: path
      key_file:
        description: PEM file with the client's key, when O(routers[].cert_file) does not contain it.
        type: path
      server_name:
        description: The name in the endpoint's certificate, when it is not O(routers[].host).
        type: str
      timeout:
        description: How long one exchange with the router may last, for example V(2s).
        type: str
        default: 2s
"""
