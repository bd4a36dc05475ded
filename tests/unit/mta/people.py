# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random descriptors in the styles of real people: what they describe, and how they are written."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

_COMMENTS = ("", "", "", "  # a comment: ~{srv-api/url}", " #", "\t# tab\tand 'quote", "   # ${default-url} {x")
_PLAIN = re.compile(r"[A-Za-z0-9_$~/.][A-Za-z0-9_$~/.(){}^-]*(?: [A-Za-z0-9_$~{}/.-]+)*(?:://[A-Za-z0-9_$~{}/.-]+)?")
_AMBIGUOUS = re.compile(r"(?i)(?:~|y|n|yes|no|on|off|true|false|null|[-+.0-9_]+)")


def data(random: Random) -> dict[str, Any]:
    """What a descriptor describes."""
    modules = [_module(random, name) for name in random.sample(["srv", "app", "mtx", "x-1"], random.randint(1, 3))]
    entries = [entry["name"] for module in modules for entry in module.get("provides") or []]
    resources = [
        _resource(random, name, modules) for name in random.sample(["reg", "auth", "dest", "ups"], random.randint(1, 3))
    ]
    for module in modules:
        module["requires"] = _requires(random, module, entries, [one["name"] for one in resources], modules)
    if random.random() < 0.2:
        modules.append(_content(random, modules, resources))
    body: dict[str, Any] = {"_schema-version": "3.3", "ID": "shop", "version": "1.0.0", "modules": modules}
    if random.random() < 0.9:
        body["resources"] = resources
    if random.random() < 0.3:
        body["parameters"] = random.choice([{"prefix": "v1", "my-host": "h-1"}, None, {"keep-existing-routes": True}])
    if random.random() < 0.2:
        body["description"] = "either // or: \\${default-url} and \\~{a/b}"
    keys = list(body)
    random.shuffle(keys)
    return {key: body[key] for key in keys}


def _module(random: Random, name: str) -> dict[str, Any]:
    module: dict[str, Any] = {"name": name, "type": "approuter.nodejs" if name == "app" else "nodejs"}
    parameters = random.choice(
        [
            None,
            {},
            {"memory": "1G"},
            {"host": f"own-{name}"},
            {"host": "${default-host}-x"},
            {"hosts": [f"one-{name}", "two"]},
            {"domain": "cert.${default-domain}"},
            {"domains": ["d.example", "e.example"]},
            {"host": f"own-{name}", "route-path": "/api"},
            {"route-path": "/v1"},
            {"routes": [{"route": "*.${default-uri}"}]},
            {"routes": [{"route": "${default-host}.cert.${default-domain}"}, {"route": "${default-url}"}]},
            {"routes": [{"route": f"{name}.example.com"}, {"route": "second.example.com/p"}]},
            {"routes": [{"route": "*.example.com"}]},
            {"my-url": "${default-url}/${prefix}", "prefix": "v2"},
            {"keep-existing-routes": False, "instances": 1},
            {"app-name": f"{name}-${{space}}", "space": "dev"},
        ]
    )
    if parameters is not None:
        module["parameters"] = parameters
    if random.random() < 0.8:
        texts = [
            "${default-url}",
            "${default-uri}",
            "https://${default-host}.x.example",
            "${protocol}://${host}.${domain}/path",
            "${default-live-url}",
            "${protocol}://${default-live-uri}/x",
            "https://${routes/0/route}",
            "${my-url}/z" if "my-url" in module.get("parameters", {}) else "plain",
            "${default-idle-url}",
            "https://${app-name}.x.example",
            "\\${default-url} is text",
        ]
        names = random.sample(["url", "srv-url", "uri", "live", "srv-live"], random.randint(1, 3))
        nested = {"urls": {"main": "${default-url}"}} if random.random() < 0.1 else {}
        properties: dict[str, Any] = {**{key: random.choice(texts) for key in names}, **nested}
        module["provides"] = [{"name": f"{name}-api", "properties": properties}]
        if random.random() < 0.2:
            module["provides"].append({"name": f"{name}-more", "properties": {"url": random.choice(texts)}})
    if random.random() < 0.4:
        module["properties"] = random.choice(
            [None, {}, {"A": None, "B": "text"}, {"TENANT_HOST_PATTERN": "^(.*)-${default-uri}"}]
        )
    return module


def _requires(
    random: Random, module: dict[str, Any], entries: list[str], resources: list[str], modules: list[dict[str, Any]]
) -> list[Any] | None:
    items: list[Any] = []
    for entry in random.sample(entries, random.randint(0, min(2, len(entries)))):
        key = random.choice([*_properties(entry, modules)])
        items.append({"name": entry, "group": "destinations", "properties": {"name": entry, "url": f"~{{{key}}}"}})
    for resource in random.sample(resources, random.randint(0, len(resources))):
        item: dict[str, Any] = {"name": resource}
        if random.random() < 0.2:
            item["parameters"] = {"config": {"callback": random.choice(["${default-url}/hook", "${host}", "x"])}}
        items.append(item)
    return items or (None if random.random() < 0.5 else [])


def _properties(entry: str, modules: list[dict[str, Any]]) -> list[str]:
    return [
        key for one in modules for own in one.get("provides") or [] if own["name"] == entry for key in own["properties"]
    ]


def _resource(random: Random, name: str, modules: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [entry["name"] for module in modules for entry in module.get("provides") or []]
    links = [f"~{{{entry}/{key}}}" for entry in entries for key in _properties(entry, modules)]
    links += ["plain", "${default-url}", "\\~{tenant/url} \\${tenant}"]
    if random.random() < 0.05:
        links.append("~{nobody/url}")
    urls = [
        random.choice(links) + random.choice(["", "/cb", "/{tenantId}?a=b", " " + random.choice(links)]) for _ in "abcd"
    ]
    config: dict[str, Any] = random.choice(
        [
            {"url": urls[0], "other": 1},
            {"oauth2-configuration": {"redirect-uris": urls[:2], "validity": 900}},
            {"appUrls": {"onSubscription": urls[0], "onSubscriptionAsync": True, "getDependencies": urls[1]}},
            {"appCallbacks": {"subscriptionCallbacks": {"url": urls[0]}, "dependenciesCallbacks": {"url": urls[1]}}},
            {
                "init_data": {
                    "instance": {"destinations": [{"Name": "srv", "URL": urls[0]}, {"Name": "b", "URL": urls[1]}]}
                }
            },
            {"deep": [{"a": [{"b": urls[0]}]}, [urls[1], None]], "empty": None},
        ]
    )
    service = "saas-registry" if "appUrls" in config else "subscription-manager" if "appCallbacks" in config else "any"
    kind = random.choice(["managed-service", "managed-service", "user-provided-service", "existing-service"])
    resource: dict[str, Any] = {"name": name, "type": f"org.cloudfoundry.{kind}"}
    if random.random() < 0.9 and entries:
        resource["requires"] = [{"name": entry} for entry in entries]
    resource["parameters"] = {"service": service, "service-plan": "standard", "config": config}
    return resource


def _content(random: Random, modules: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
    entries = [entry["name"] for module in modules for entry in module.get("provides") or []]
    links = [f"~{{{entry}/{key}}}/x" for entry in entries for key in _properties(entry, modules)] or ["plain"]
    destinations = [{"Name": "srv", "URL": random.choice(links)}]
    return {
        "name": "content",
        "type": "com.sap.application.content",
        "requires": [
            *({"name": entry} for entry in entries),
            {"name": resources[0]["name"], "parameters": {"content-target": True}},
        ],
        "parameters": {"content": {"instance": {"destinations": destinations}}},
    }


class Writer:
    """Writes data as a person would: everybody has habits, and exceptions to them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.step = random.choice([2, 2, 2, 3, 4])
        self.indentless = random.random() < 0.4
        self.flow = random.choice([0.0, 0.05, 0.3])
        self.anchors = random.choice([0.0, 0.0, 0.5])
        self.comments = random.choice([0.0, 0.2, 0.5])
        self.quotes = random.choice([0.1, 0.5])
        self.known: dict[str, str] = {}
        self.count = 0
        self.in_block = False

    def text(self, body: Any) -> str:
        lines = self._lines(body, 0)
        head = self.random.choice([[], [], ["---"], ["# who: me", ""], ["%YAML 1.1", "---"]])
        tail = self.random.choice([[], [], ["", ""], ["# the end"], ["..."]])
        newline = self.random.choice(["\n", "\n", "\n", "\n", "\r\n", "\r"])
        text = newline.join([*head, *lines, *tail]) + self.random.choice([newline, newline, ""])
        return self.random.choice(["", "", "", "\ufeff"]) + text

    def _lines(self, value: Any, column: int) -> list[str]:
        """Block lines of a collection that is not empty."""
        pad, lines = " " * column, []
        if isinstance(value, list):
            for item in value:
                first, *rest = self._below(item, column + 2, inline=True)
                lines += [f"{pad}-{first}", *rest]
                lines += self._between(column)
            return lines
        for key, item in value.items():
            name = json.dumps(key) if self.random.random() < 0.03 else key
            first, *rest = self._below(item, column, inline=False)
            lines += [f"{pad}{name}:{first}", *rest]
            lines += self._between(column)
        return lines

    def _between(self, column: int) -> list[str]:
        if self.in_block or self.random.random() > self.comments / 3:
            return []
        return [
            self.random.choice(
                ["", " " * column + "# between: lines", "# at the margin", "\t", " " * (column + 4) + "# deeper"]
            )
        ]

    def _below(self, value: Any, column: int, inline: bool) -> list[str]:
        """A value behind ``key:`` or ``-``: the rest of that line, and further lines."""
        self.in_block = False
        comment = self.random.choice(_COMMENTS) if self.random.random() < self.comments else ""
        shape = json.dumps(value, sort_keys=True)
        if shape in self.known and self.random.random() < self.anchors:
            return [f" *{self.known[shape]}{comment}"]
        anchor = ""
        if value and len(shape) > 8 and self.random.random() < self.anchors / 3 and not inline:
            self.count += 1
            self.known[shape] = f"a{self.count}"
            anchor = f" &{self.known[shape]}"
        if not value or not isinstance(value, (dict, list)) or self.random.random() < self.flow:
            return self._scalar_or_flow(value, column, anchor, comment, inline)
        if inline:
            lines = self._lines(value, column)
            return [" " + lines[0].lstrip(" "), *lines[1:]]
        deeper = column if isinstance(value, list) and self.indentless else column + self.step
        return [f"{anchor}{comment}", *self._lines(value, deeper)]

    def _scalar_or_flow(self, value: Any, column: int, anchor: str, comment: str, inline: bool) -> list[str]:
        if isinstance(value, str) and self.random.random() < 0.04 and not anchor and "\\" not in value:
            # A comment behind it would be a part of it.
            pad, self.in_block = " " * (column + self.step), True
            return [self.random.choice([" >-", " |-"]), f"{pad}{value}", *self.random.choice([[], [""]])]
        if value is None:
            return [self.random.choice([" ~", " null", ""]) + comment]
        return [f"{anchor}{' ' if inline else self._gap()}{self._flow(value, block=True)}{comment}"]

    def _gap(self) -> str:
        return self.random.choice([" ", " ", " ", "   ", "\t" if self.comments else " "])

    def _flow(self, value: Any, block: bool = False) -> str:
        if isinstance(value, dict):
            inside = ", ".join(f"{key}: {self._flow(item)}" for key, item in value.items())
            return "{" + inside + self.random.choice(["", "", " "]) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(self._flow(item) for item in value) + self.random.choice(["", " "]) + "]"
        if not isinstance(value, str):
            return {"None": "null", "True": "true", "False": "no"}.get(str(value)) or str(value)
        plain = _PLAIN.fullmatch(value) and not _AMBIGUOUS.fullmatch(value) and (block or not set("{}[],") & set(value))
        if plain and self.random.random() > self.quotes:
            return value
        return "'" + value.replace("'", "''") + "'" if self.random.random() < 0.6 else json.dumps(value)
