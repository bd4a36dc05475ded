# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes that tenants have to an application router: they are mapped by others, and have to outlive the old version."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

KEEP_ROUTES = "keep-existing-routes"


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
        if subscribed or descriptor.modules[name].get("properties", "TENANT_HOST_PATTERN")
        if not _has_wildcard(descriptor.modules[name])
    ]


def _has_wildcard(module: Value) -> bool:
    routes = module.get("parameters", "routes")
    texts = [route.get("route") for route in routes.items] if routes else []
    return any(text is not None and "*." in text.text for text in texts)
