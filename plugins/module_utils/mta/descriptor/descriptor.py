# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A descriptor of a multi-target application: mta.yaml, mtad.yaml, or an extension descriptor (.mtaext)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import Archive
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor import packages
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.overlay import overlay
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.values import (
    Source,
    Value,
    names,
    parse,
    read,
    read_archived,
)

OF_OTHER_MTAS = ("configuration", "mta-provided", "mta-provides-dependency")
"""Types of resources that stand for what other MTAs provide; ``configuration`` is today's name."""
NOT_CREATED = (
    *OF_OTHER_MTAS,
    "org.cloudfoundry.existing-service",
    "org.cloudfoundry.existing-service-key",
)
"""Types of resources whose configuration the deploy service writes to no service."""
_APPROUTER_TYPES = ("approuter.nodejs", "com.sap.application.router")
_APPROUTER_PROPERTIES = ("EXT_SESSION_MGT", "TENANT_HOST_PATTERN")


@dataclass(frozen=True)
class Descriptor:
    """One descriptor, or one with its extensions laid over it.

    :ivar id: the MTA's id, or the extension's.
    :ivar version: the MTA's version; empty in an extension.
    :ivar schema_version: as it is written, for example ``3.1``.
    :ivar extends: the id that an extension extends; empty in a descriptor.
    :ivar last: the id that a further extension extends: the last extension's, else the descriptor's own.
    :ivar modules: the modules by name, in the descriptor's order; resources likewise.
    :ivar packages: modules whose ``package.json`` says that they are application routers.
    """

    source: Source
    root: Value
    id: str
    version: str
    schema_version: str
    extends: str
    modules: Mapping[str, Value]
    resources: Mapping[str, Value]
    last: str
    packages: frozenset[str] = frozenset()

    @classmethod
    def load(cls, path: str) -> Descriptor:
        """Read and check a descriptor, and look for the ``package.json`` of its modules beside it.

        :raises InputError: the file can't be read, is no YAML or no descriptor; the message names file and line.
        """
        descriptor, folder = cls.parse(read(path)), os.path.dirname(os.path.realpath(path))
        paths = {name: module.string("path") for name, module in descriptor.modules.items()}
        return replace(
            descriptor, packages=packages.beside(folder, {name: path for name, path in paths.items() if path})
        )

    @classmethod
    def of_archive(cls, archive: Archive) -> Descriptor:
        """Read and check the deployment descriptor of an archive, and look for the ``package.json`` of its modules.

        :raises InputError: see :meth:`load`.
        """
        return replace(cls.parse(read_archived(archive)), packages=packages.archived(archive.path))

    @classmethod
    def parse(cls, source: Source) -> Descriptor:
        """Check a descriptor's text; see :meth:`load`."""
        root = parse(source)
        if not isinstance(root.data, dict):
            raise InputError(
                f"{root.place}: the descriptor is not a mapping.", "Begin with _schema-version, ID and version."
            )
        return cls._of(source, root)

    @classmethod
    def _of(cls, source: Source, root: Value) -> Descriptor:
        head = {key: _head(root, key) for key in ("ID", "version", "_schema-version", "extends")}
        required = ("ID", "_schema-version") if head["extends"] else ("ID", "version", "_schema-version")
        for key in required:
            if not head[key]:
                raise InputError(f"{source.name} has no {key}.", f"Add the key {key} at the top of the descriptor.")
        modules, resources = (
            _named(root, key, what) for key, what in (("modules", "module"), ("resources", "resource"))
        )
        return cls(
            source,
            root,
            head["ID"],
            head["version"],
            head["_schema-version"],
            head["extends"],
            modules,
            resources,
            head["ID"],
        )

    def rewritten(self, text: str) -> Descriptor:
        """The descriptor with another text.

        :raises InputError: see :meth:`load`.
        """
        return replace(Descriptor.parse(Source(self.source.name, text)), packages=self.packages)

    @property
    def major(self) -> int:
        """Major number of the schema version; 0 when it is no number."""
        first = self.schema_version.partition(".")[0]
        return int(first) if first.isdigit() else 0

    def extended(self, extensions: Sequence[Descriptor]) -> Descriptor:
        """The descriptor as the deploy service merges it: extensions are a chain by what they extend, given in any
        order.

        :raises InputError: an extension extends something else, has another schema, or names a module or resource that
            does not exist.
        """
        result, waiting = self, list(extensions)
        while waiting:
            extension = next((one for one in waiting if one.extends == result.last), waiting[0])
            waiting.remove(extension)
            if extension.extends != result.last:
                advice = f"Extensions are a chain: the next one extends {result.last}."
                raise InputError(
                    f"{extension.source.name} extends {extension.extends or 'nothing'}, not {result.last}.", advice
                )
            if extension.major != self.major:
                advice = f"Write _schema-version: {self.schema_version} in the extension."
                raise InputError(
                    f"{extension.source.name} has schema version {extension.schema_version}, {self.id} has"
                    f" {self.schema_version}.",
                    advice,
                )
            for kind, own, there in (
                ("module", extension.modules, self.modules),
                ("resource", extension.resources, self.resources),
            ):
                for name, value in own.items():
                    if name not in there:
                        raise InputError(
                            f"{value.place}: {self.id} has no {kind} {name}.",
                            f"There are {', '.join(there) or 'none'}.",
                        )
            root = overlay(result.root, extension.root)
            modules, resources = (
                _named(root, key, what) for key, what in (("modules", "module"), ("resources", "resource"))
            )
            result = Descriptor(
                self.source,
                root,
                self.id,
                self.version,
                self.schema_version,
                "",
                modules,
                resources,
                extension.id,
                self.packages,
            )
        return result

    def summary(self, named: Sequence[str] = ()) -> dict[str, object]:
        """What it describes, for a module's result.

        :param named: see :meth:`approuters`.
        """
        return {
            "id": self.id,
            "version": self.version,
            "schema_version": self.schema_version,
            "extends": self.extends,
            "last": self.last,
            "modules": list(self.modules),
            "resources": list(self.resources),
            "approuters": self.approuters(named),
        }

    def approuters(self, named: Sequence[str] = ()) -> list[str]:
        """Names of the modules that are application routers: by type, by their environment, by their name or path, or
        by their ``package.json``.

        :param named: further modules that are.
        """
        known = {*self.packages, *named}
        return [name for name, module in self.modules.items() if name in known or _is_approuter(name, module)]

    def parameter(self, module: Value, name: str) -> Value | None:
        """A parameter that holds for a module, where the descriptor sets it."""
        return module.get("parameters", name) or self.root.get("parameters", name)

    def check_modules(self, option: str, modules: Sequence[str]) -> None:
        """Make sure that modules exist that an option names.

        :raises InputError: one does not.
        """
        unknown = [name for name in modules if name not in self.modules]
        if unknown:
            raise InputError(
                f"{option}: {self.source.name} has no module {unknown[0]}.",
                f"There are {', '.join(self.modules) or 'none'}.",
            )

    def services(self) -> dict[str, Value]:
        """The resources that become services, which the deploy service creates or updates with their configuration.

        An extension given alone does not say what its resources are: all count.
        """
        types = {name: resource.string("type") for name, resource in self.resources.items()}
        return {
            name: self.resources[name]
            for name, kind in types.items()
            if (kind not in NOT_CREATED if kind else self.extends)
        }

    def is_subscribed(self) -> bool:
        """Whether tenants subscribe: a service of the SaaS registry or of the subscription manager."""
        kinds = {resource.string("parameters", "service") for resource in self.resources.values()}
        return bool(kinds & {"saas-registry", "subscription-manager"})


def required(value: Value) -> dict[str, Value]:
    """What a module or resource requires, by name."""
    return names(value.get("requires"))


def _head(root: Value, key: str) -> str:
    value = root.get(key)
    if value is None:
        return ""
    if isinstance(value.data, (dict, list)):
        raise InputError(f"{value.place}: {key} is not a string.", f"Write one value for {key}.")
    return value.text or (str(value.data) if value.data is not None else "")


def _named(root: Value, key: str, what: str) -> dict[str, Value]:
    """The modules or resources of a descriptor by name.

    :raises InputError: not a list of mappings with a name, or a name twice.
    """
    value = root.get(key)
    if value is None or value.data is None:
        return {}
    if not isinstance(value.data, list):
        raise InputError(f"{value.place}: {key} is not a list.", f"Write one item per {what}, each with a name.")
    found: dict[str, Value] = {}
    for item in value.items:
        name = item.get("name")
        if name is None or not name.text:
            raise InputError(f"{item.place}: a {what} has no name.", f"Give every {what} a name.")
        if name.text in found:
            raise InputError(
                f"{name.place}: the {what} {name.text} is there twice, first in line {found[name.text].line}.",
                "Rename or remove one.",
            )
        found[name.text] = item
    return found


def _is_approuter(name: str, module: Value) -> bool:
    if module.string("type") in _APPROUTER_TYPES:
        return True
    if any(module.get("properties", key) for key in _APPROUTER_PROPERTIES):
        return True
    folder = module.string("path").rstrip("/").rpartition("/")[2]
    return any(word == "approuter" or word.endswith("-approuter") for word in (name, folder))
