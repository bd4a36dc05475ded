# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callbacks of subscriptions: what the SaaS registry or the subscription manager calls, and how long it waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import Refused
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.edit import Edits
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.live import PLACEHOLDER
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

_REGISTRY, _MANAGER = "saas-registry", "subscription-manager"


@dataclass(frozen=True)
class Flag:
    """Whether one callback is asynchronous: its key and, if it is there, its value."""

    callback: str
    key: str
    value: Value | None


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of one service.

    :ivar name: of the service's resource.
    :ivar urls: the mapping with the URLs.
    :ivar flags: of the callbacks that are there.
    :ivar timeout_key: the key of the time in milliseconds; in the mapping ``group`` below ``urls`` where that is set.
    """

    name: str
    urls: Value
    flags: tuple[Flag, ...]
    timeout_key: str
    group: str = ""

    @property
    def timeout(self) -> Value | None:
        """How long an asynchronous answer may take, as it is written."""
        return self.urls.get(*([self.group] if self.group else []), self.timeout_key)

    def waits_ms(self, descriptor: Descriptor) -> int | None:
        """How long the service waits: 0 when nothing is said, ``None`` when a placeholder says it that is not set
        here.
        """
        value = self.timeout
        if value is None or value.data is None:
            return 0
        data = value.data
        match = PLACEHOLDER.fullmatch(value.text)
        if match:
            resource = descriptor.resources.get(self.name)
            own = resource.get("parameters", match[1]) if resource else None
            parameter = own or descriptor.root.get("parameters", match[1])
            data = parameter.data if parameter else None
        if isinstance(data, str) and data.isdigit():
            return int(data)
        return data if isinstance(data, int) else None

    def wait(self, descriptor: Descriptor, longest_ms: int, edits: Edits) -> None:
        """Let the service wait as long as the longest upgrade takes; a longer time stays.

        :raises Refused: the time can't be written alone.
        """
        now = self.waits_ms(descriptor)
        if now is None or now >= longest_ms:
            return
        value = self.timeout
        if value is None or self._holder().mapping[self.timeout_key].merged:
            if self.group:
                edits.put_below(self.urls, self.group, self.timeout_key, longest_ms)
            else:
                edits.put(self.urls, self.timeout_key, longest_ms)
        elif value.data is None:
            raise Refused(f"{self.urls.place}: {self.timeout_key} has no value.", "Remove the key, then run again.")
        else:
            edits.set(value, longest_ms)

    def _holder(self) -> Value:
        return (self.urls.get(self.group) if self.group else self.urls) or self.urls


def callbacks(descriptor: Descriptor) -> Iterator[Callbacks]:
    """The services that call the application when a tenant subscribes; in an extension alone, what looks like them."""
    for name, service in descriptor.services().items():
        kind = service.get("parameters", "service")
        urls = service.get("parameters", "config", "appUrls")
        complete = urls is not None and (urls.get("onSubscription") is not None or descriptor.extends)
        if urls is not None and complete and (kind is None or kind.text == _REGISTRY):
            others = [key for key in ("onUnSubscription", "onUpdateDependencies") if key in urls.mapping]
            flags = [Flag(key, f"{key}Async", urls.get(f"{key}Async")) for key in ("onSubscription", *others)]
            yield Callbacks(name, urls, tuple(flags), "callbackTimeoutMillis")
        urls = service.get("parameters", "config", "appCallbacks", "subscriptionCallbacks")
        if urls is not None and urls.mapping and (kind is None or kind.text == _MANAGER):
            pairs = (("subscription", "subscribeEnable"), ("unsubscription", "unSubscribeEnable"))
            flags = [Flag(callback, key, urls.get("async", key)) for callback, key in pairs]
            yield Callbacks(name, urls, tuple(flags), "timeoutInMillis", "async")
