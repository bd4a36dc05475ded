# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes that tenants have to an application router: they are mapped by others, and have to outlive the old version."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor, required
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import Urls
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

KEEP_ROUTES = "keep-existing-routes"
_PATTERN = "TENANT_HOST_PATTERN"
_HOST = re.compile(r"\)([^()|?*+\[\]]+?)\$?$")
"""What follows the tenant in a pattern of hosts, when it is plain text."""
_WILDCARD = re.compile(r"\*(\.[^/]+)")


def keeps_routes(descriptor: Descriptor, module: Value) -> bool:
    """Whether a module keeps routes that others have mapped to it: by its own flag, else by one of the groups
    ``keep-existing`` or the flag in the parameters of the whole descriptor.
    """
    own = module.get("parameters", KEEP_ROUTES)
    if own is not None and own.data is not None:
        return own.data is True
    groups = [owner.get("parameters", "keep-existing", "routes") for owner in (module, descriptor.root)]
    flags = [*groups, descriptor.root.get("parameters", KEEP_ROUTES)]
    return any(flag is not None and flag.data is True for flag in flags)


def routes_of_tenants(descriptor: Descriptor, named: Sequence[str] = ()) -> list[str]:
    """Application routers to which every tenant has a route of its own.

    A wildcard among its own routes serves all tenants; then nobody maps further ones.

    :param named: modules that are application routers although nothing tells so.
    """
    subscribed = descriptor.is_subscribed()
    return [
        name
        for name in descriptor.approuters(named)
        if subscribed or _tells_tenants(descriptor, descriptor.modules[name])
        if not _serves_all(descriptor, descriptor.modules[name])
    ]


def _tells_tenants(descriptor: Descriptor, module: Value) -> bool:
    """Whether an application router tells tenants by their hosts, and there are several: an application whose
    authorization service is dedicated has its provider only.
    """
    if module.get("properties", _PATTERN) is None:
        return False
    bound = [descriptor.resources[name] for name in required(module) if name in descriptor.resources]
    xsuaa = [resource for resource in bound if resource.string("parameters", "service") == "xsuaa"]
    modes = {resource.string("parameters", "config", "tenant-mode") for resource in xsuaa}
    return modes != {"dedicated"}


def _serves_all(descriptor: Descriptor, module: Value) -> bool:
    """Whether a wildcard is among the own routes to which the hosts of all tenants belong, as far as it is known here:
    a host that an extension or the deployment names is believed to.
    """
    urls = Urls(module, *(owner.get("parameters") for owner in (module, descriptor.root)))
    routes = [urls.expand(urls.route(number)) for number in range(len(urls.routes()))]
    found = [match[1] for route in routes for match in [_WILDCARD.search(route)] if match]
    tenants = _HOST.search(urls.expand(module.string("properties", _PATTERN)))
    host = tenants[1].replace("\\", "") if tenants else ""
    return any(not host or "$" in host + wildcard or host.endswith(wildcard) for wildcard in found)
