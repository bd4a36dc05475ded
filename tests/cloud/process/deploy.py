# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plain deployment."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..api_services import USER_PROVIDED
from ..archive import ContentError, checksum
from ..parameters import BLUE_GREEN
from ..resolve import merged
from ..space import App, Service
from .common import Step, StepError
from .modules import OfDescriptor

_MANAGED, _PROVIDED = "org.cloudfoundry.managed-service", "org.cloudfoundry.user-provided-service"


class Deploy(OfDescriptor):
    """Every application is updated under its name, one after the other."""

    _first = False
    """Whether nothing of the MTA is there."""

    def steps(self) -> list[Step]:
        return [*self._prepare(), self._services, self._replace, self._finish]

    def _prepare(self) -> list[Step]:
        return [self._validate, self._lock, self._detect]

    def _validate(self) -> None:
        self._say(f"Operation ID: {self._operation.id}")
        self._say(f'Deploying in org "{self._space.org}" and space "{self._space.name}"')
        self._at("validate")
        archive, extensions = self._controller.archive(self._operation)
        self._descriptor, self._contents = merged(archive.descriptor, extensions), archive.contents
        wanted = self._operation.mta_id
        if wanted and wanted != self._descriptor["ID"]:
            raise ContentError(f'The archive is of MTA "{self._descriptor["ID"]}", not "{wanted}"')
        self._operation.mta_id = str(self._descriptor["ID"])
        chosen = self._select("modules", "modulesForDeployment")
        self._chosen = [module for module in self._modules() if module in chosen]
        self._resources = self._select("resources", "resourcesForDeployment")
        if self._flag("isSecurityEnabled"):
            self._expect_key()

    def _key_holder(self) -> str:
        """The user-provided service with the key that secure parameters are encrypted with."""
        parts = ["__mta-secure", self._operation.mta_id, *filter(None, [self._operation.namespace])]
        return self._operation.parameters.get("disposableUserProvidedServiceName") or "-".join(parts)

    def _expect_key(self) -> None:
        holder = self._space.services.get(self._key_holder())
        if holder is None or not holder.credentials.get("encryptionKey"):
            raise ContentError(f'There is no user-provided service "{self._key_holder()}" with an encryption key')

    def _detect(self) -> None:
        mta, namespace = self._operation.mta_id, self._operation.namespace
        versions, new = self._space.versions(mta, namespace), str(self._descriptor["version"])
        self._first = not versions
        self._controller.backups[mta, namespace, checksum(self._descriptor)] = self._descriptor
        if self._first:
            self._say(f'No deployed MTA detected - this is initial deployment of MTA with ID "{mta}"')
            return
        rule = self._operation.parameters.get("versionRule", "SAME_HIGHER")
        if len(versions) > 1:
            self._say(f'Detected deployed MTA with ID "{mta}" and version "unknown"')
            self._say(f'Ignoring version rule "{rule}" because of the unknown version', "WARNING")
            return
        (version,) = versions
        self._say(f'Detected deployed MTA with ID "{mta}" and version "{version}"')
        if rule != "ALL" and _numbers(new) < _numbers(version):
            raise ContentError(
                'A higher version of your MTA is already deployed. Include the command line option "--version-rule ALL"'
                " in your deploy command."
            )
        if rule == "HIGHER" and _numbers(new) == _numbers(version):
            raise ContentError(
                'The same version of your MTA is already deployed. Include the command line option "--version-rule'
                ' SAME_HIGHER".'
            )

    def _services(self) -> None:
        """Every service is created or updated once, with what the placeholders are now; nothing does it again after the
        switch.
        """
        self._at("services")
        for body in self._descriptor.get("resources") or ():
            if str(body["name"]) in self._resources and body.get("type") in (_MANAGED, _PROVIDED):
                self._service(body)

    def _service(self, body: dict[str, Any]) -> None:
        resource, managed = str(body["name"]), body["type"] == _MANAGED
        parameters, name = body.get("parameters") or {}, self._service_name(resource)
        offering = str(parameters.get("service") or USER_PROVIDED)
        config = self._resolved(idle=self._operation.type == BLUE_GREEN).config(resource)
        self._fail_at(f"service {resource}")
        known = self._space.services.get(name)
        if known is not None and known.offering != offering:
            if not self._flag("deleteServices"):
                raise ContentError(
                    f'Service "{name}" from MTA resource "{resource}" needs to be recreated, but deletion of services'
                    " was not asked for"
                )
            self._say(f'Deleting service "{name}"...')
            known = None
        if known is None:
            self._say(f'Creating service "{name}" from MTA resource "{resource}"...')
            credentials = self._space.credentials.get(name, {} if managed else config)
            tags = [str(tag) for tag in parameters.get("service-tags") or ()]
            plan = str(parameters.get("service-plan") or "")
            known = Service(name, offering, plan, config, credentials, tags, managed=managed, resource=resource)
            self._space.services[name] = known
        elif known.config != config and not (parameters.get("skip-service-updates") or {}).get("parameters"):
            self._say(f'Updating service "{name}"...')
            known.config, known.writes = config, known.writes + 1
        known.resource, known.mta_id = resource, self._operation.mta_id
        known.namespace, known.version = self._operation.namespace, str(self._descriptor["version"])

    def _replace(self) -> None:
        for module in self._chosen:
            self._once(f"replace {module}", partial(self._replace_one, module))

    def _replace_one(self, module: str) -> None:
        if self._is_app(module):
            self._ensure(module, self._name(module), idle=False, start=not self._flag("noStart"))
        else:
            self._space.contents[module] = self._resolved(idle=False).value(self._parameters(module), module)

    def _finish(self) -> None:
        """Undeploy what no module of the descriptor stands for any longer."""
        self._at("delete live")
        for app in self._obsolete():
            self._undeploy(app)
        bound = {name for app in self._apps() for name in app.services}
        needed = {self._service_name(str(body["name"])) for body in self._descriptor.get("resources") or ()}
        self._release([service for service in self._services_there() if service.name not in bound | needed])
        if self._flag("isSecurityEnabled") and self._flag("isDisposableUserProvidedServiceEnabled"):
            with self._space.lock:
                self._space.services.pop(self._key_holder(), None)

    def _obsolete(self) -> list[App]:
        """Applications of modules that are gone, and those of the modules at hand that have another name."""
        names = {module: self._name(module) for module in self._modules()}
        return [
            app
            for app in self._apps()
            if app.module not in names or (app.module in self._chosen and app.name != names[app.module])
        ]


def _numbers(version: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version.partition("-")[0].split("."))
    except ValueError as error:
        raise StepError(f'Unable to parse version "{version}"') from error
