# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What names a module's URL: which placeholders differ between idle and live, and what to write for the live one.

As the deploy service has it: ``default-uri`` is ``${host}.${domain}`` and the route path, with the idle host while a
version is tested. ``default-live-host`` never follows an own host or own routes; ``default-live-uri`` and
``default-live-url`` follow the own domain and the route path. ``app-name`` gets ``-idle`` behind it, an own one, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import Value

REFERENCE = re.compile(r"(?<!\\)~\{([^{}]+)\}")
PLACEHOLDER = re.compile(r"(?<!\\)\$\{([^{}]+)\}")
"""With a backslash before them both are text."""
_DEFAULT = re.compile(r"default-(?:idle-)?(url|uri|host)|idle-(host)|(?:default-)?idle-(domain)")
_HOST = re.compile(r"hosts?(?:/(\d+))?")
LIVE = re.compile(r"default-live-(url|uri|host)")
"""The names of placeholders of the live URL."""
_ROUTE = re.compile(r"routes/(\d+)/route")
_DEPTH = 10
_LONGEST = 10_000
"""No URL is longer; parameters that repeat each other end here."""


def is_module_url(name: str) -> bool:
    """Whether a placeholder names the idle or live URL, URI or host of a module; resources have none of them."""
    return bool(_DEFAULT.fullmatch(name) or LIVE.fullmatch(name) or _HOST.fullmatch(name))


class Urls:
    """The URLs of one module.

    :param module: the module, extensions laid over it.
    :param scopes: where its parameters are looked up, the nearest first.
    :param spelled: whether own routes are to be written out; where ``use-live-routes`` does not hold, their placeholder
        is the idle one.
    :param namespaced: whether names of applications get the namespace of the deployment.
    """

    def __init__(self, module: Value, *scopes: Value | None, spelled: bool = False, namespaced: bool = False) -> None:
        self.module = module
        self._spelled = spelled
        self._namespaced = namespaced
        self._scopes = [scope for scope in scopes if scope is not None]

    def idle(self, name: str) -> str | None:
        """Which part of the idle URL a placeholder names: ``url``, ``uri``, ``host`` or ``domain``, or the idle
        ``name``; ``None`` for another placeholder. An own host is the same in both phases.
        """
        match = _DEFAULT.fullmatch(name)
        if match:
            return match[1] or match[2] or match[3]
        if name == "app-name":
            return "name"
        return "host" if _HOST.fullmatch(name) and self._own_host() is None else None

    def live(self, kind: str) -> str | None:
        """What names the live URL, with placeholders; ``None`` when the deploy service offers nothing.

        :param kind: ``url``, ``uri``, ``host``, ``domain`` or ``name``.
        """
        if kind == "name":
            own, apply = self._own("app-name"), self.module.get("parameters", "apply-namespace")
            changed = self._namespaced and not (apply and apply.data is False)
            return "${default-live-app-name}" if own is None else None if changed else own
        if kind == "domain":
            return self._own("domain") or "${default-live-domain}"
        host = self._own_host()
        if self.routes() and not self._default_routes():
            return self._by_route(kind)
        bare = self._flag("no-hostname")
        if host is None and not bare:
            return f"${{default-live-{kind}}}"
        domain = self._own("domain") or "${default-live-domain}"
        host = PLACEHOLDER.sub(self._default_live, host or "")
        if self._has_idle(host) or self._has_idle(domain) or not (host or bare):
            return None
        uri = f"{domain if bare else f'{host}.{domain}'}{self._own('route-path') or ''}"
        return {"url": f"${{protocol}}://{uri}", "uri": uri, "host": None if bare else host}[kind]

    def wrong_placeholders(self, text: str, live_routes: bool) -> Iterator[tuple[str, str, str | None]]:
        """The placeholders of an expanded text that are wrong where it is written once, while idle is tested: each with
        its kind (see :class:`.references.Wrong`) and what to write instead.

        :param live_routes: whether ``use-live-routes`` holds for the text.
        """
        for match in PLACEHOLDER.finditer(text):
            kind, live, route = self.idle(match[1]), LIVE.fullmatch(match[1]), _ROUTE.fullmatch(match[1])
            if kind:
                yield match[0], "idle", self.live(kind)
            elif live and self.live(live[1]) != match[0] and not self._made_of(live[1]):
                yield match[0], "live", self.live(live[1])
            elif route:
                written = self.route(int(route[1]))
                if written and self._has_idle(written):
                    yield match[0], "idle", self.live_text(written)
                elif not live_routes:
                    yield match[0], "routes", (written if self._spelled else match[0]) if written else None

    def expand(self, text: str) -> str:
        """Replace placeholders of parameters that the descriptor itself sets, but not the hosts and routes that an idle
        application has instead.
        """
        for _round in range(_DEPTH):
            before, text = text, PLACEHOLDER.sub(self._value, text)
            if text == before or len(text) > _LONGEST:
                break
        return text

    def live_text(self, text: str, live_routes: bool = False, depth: int = _DEPTH) -> str:
        """A text of the module with live placeholders, and with what of its parameters needs them; all else stays as it
        is written.
        """
        lives = {written: live for written, _kind, live in self.wrong_placeholders(text, live_routes)}

        def written(match: re.Match[str]) -> str:
            if match[0] in lives:
                return lives[match[0]] or match[0]
            parameter = self._parameter(match[1])
            live = self.live_text(parameter, live_routes, depth - 1) if parameter and depth else parameter
            return match[0] if live == parameter else live

        return PLACEHOLDER.sub(written, text)

    def canonical(self, text: str) -> str:
        """A live text with every name for the same thing made one, to compare two of them."""
        domain, path = self._own("domain") or "${default-domain}", self._own("route-path") or ""
        for name, meaning in (
            ("default-live-url", "${protocol}://${default-live-uri}"),
            ("default-live-uri", f"${{default-live-host}}.{domain}{path}"),
            ("domain", domain),
            ("default-live-domain", "${default-domain}"),
        ):
            text = self.expand(text).replace(f"${{{name}}}", meaning)
        return self.expand(text)

    def routes(self) -> list[Value]:
        """The own routes."""
        return self.module.listed("parameters", "routes")

    def route(self, number: int) -> str:
        """The text of an own route; empty when there is none."""
        routes = self.routes()
        return routes[number].string("route") if number < len(routes) else ""

    def _by_route(self, kind: str) -> str | None:
        """The first own route that is an address: with ``use-live-routes`` it stays live."""
        for number in range(len(self.routes())):
            text = self.expand(self.route(number))
            if text and "*" not in text and not self._has_idle(text):
                placeholder = self.route(number) if self._spelled else f"${{routes/{number}/route}}"
                if "://" in text:
                    return {"url": placeholder}.get(kind)
                return {"url": f"${{protocol}}://{placeholder}", "uri": placeholder}.get(kind)
        return None

    def _default_routes(self) -> bool:
        """Whether own routes are made of the module's default URL: then its live form is theirs."""
        texts = [self.expand(self.route(number)) for number in range(len(self.routes()))]
        return any(
            self.idle(match[1]) or LIVE.fullmatch(match[1]) for text in texts for match in PLACEHOLDER.finditer(text)
        )

    def _made_of(self, kind: str) -> bool:
        """Whether the own host is made of the default host, which is right as a part of it then."""
        return kind == "host" and "${default-" in (self._own_host() or "")

    def _has_idle(self, text: str) -> bool:
        return any(self.idle(match[1]) for match in PLACEHOLDER.finditer(self.expand(text)))

    def _own_host(self) -> str | None:
        """The own host, or the first of the own hosts, as it is written; ``None`` when the module has none."""
        return self._own("host")

    def _own(self, key: str) -> str | None:
        """An own parameter, or the first of its plural."""
        for name in (key, f"{key}s"):
            value = self.module.get("parameters", name)
            if value is not None and value.data not in (None, []):
                first = value.items[0] if value.items else value
                return first.text
        return None

    def _default_live(self, match: re.Match[str]) -> str:
        """A placeholder in an own host: the default host that it is made of has a live form whatever the own one is."""
        default = _DEFAULT.fullmatch(match[1])
        return f"${{default-live-{default[1] or default[2] or default[3]}}}" if default else match[0]

    def _flag(self, key: str) -> bool:
        value = self.module.get("parameters", key)
        return value is not None and value.data is True

    def _value(self, match: re.Match[str]) -> str:
        name = match[1]
        hosts = _HOST.fullmatch(name)
        if self.idle(name) or LIVE.fullmatch(name):
            return match[0]
        if hosts and name != "host":
            values = self.module.get("parameters", "hosts")
            number = int(hosts[1] or 0)
            return values.items[number].text if values and number < len(values.items) else match[0]
        return self._parameter(name) or match[0]

    def _parameter(self, name: str) -> str:
        """The text of a parameter; empty when the descriptor does not set it."""
        found = next((scope.get(name) for scope in self._scopes if scope.get(name)), None)
        if found is None and name in ("host", "domain"):
            return self._own(name) or ""
        return found.text if found else ""
