# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the option group CLOUD_FOUNDRY."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  cloud_foundry:
    description:
      - The Cloud Foundry, its organisation and space, and one source of access tokens.
      - Without O(cloud_foundry.token), O(cloud_foundry.username), O(cloud_foundry.passcode) and
        O(cloud_foundry.assertion) the login of the cf CLI is used.
        O(cloud_foundry.api), O(cloud_foundry.org) and O(cloud_foundry.space) are then the ones it is targeted at,
        unless they are given.
    type: dict
    default: {}
    suboptions:
      api:
        description: The API's URL, for example V(https://api.cf.us10.hana.ondemand.com).
        type: str
      deploy_service:
        description: URL of the deploy service. By default C(https://deploy-service.) and the API's host after its first
          dot.
        type: str
      org:
        description: Name of the organisation.
        type: str
      space:
        description: Name of the space.
        type: str
      token:
        description: An access token of a user. It can't be renewed when it expires.
        type: str
      username:
        description: User that gets tokens by a password. Needs O(cloud_foundry.password).
        type: str
      password:
        description: Password of O(cloud_foundry.username).
        type: str
      origin:
        description: The identity provider of O(cloud_foundry.username), where it is not the default one.
        type: str
      passcode:
        description: A one-time passcode, from C(/passcode) of the login page. It is good for one run of a module.
        type: str
      assertion:
        description: A token of an identity provider that UAA trusts, for example of the CI system; UAA gives its own
          for it (RFC 7523, JWT bearer).
        type: str
      client_id:
        description:
          - The client that asks with O(cloud_foundry.assertion). Needs O(cloud_foundry.client_secret). By default that
            of the cf CLI.
          - A client's own credentials are no login here, as the deploy service looks for the rights of a user.
        type: str
      client_secret:
        description: Secret of O(cloud_foundry.client_id).
        type: str
      cf_home:
        description:
          - Folder that holds the cf CLI's C(.cf/config.json), as E(CF_HOME) is for the CLI; that variable, else the
            home directory by default.
          - A refresh token that replaces the CLI's is written back, so that its login stays valid.
        type: path
      ca_file:
        description: PEM file with the certificate authority of the API.
        type: path
      validate_certs:
        description: Whether to verify certificates.
        type: bool
        default: true
      timeout:
        description: How long one answer may take. Questions that change nothing are repeated.
        type: str
        default: 30s
"""
