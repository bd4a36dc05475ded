# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can't be mended alone is left as it is, and named with its place and what to do; all else is mended."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError, Refused, ZdmError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.safe import Wanted, make_safe, mend
from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.session import Sessions
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import FORMS, GUIDE, HEAD, MODULE, SERVICE, descriptor

REFUSALS: dict[str, tuple[str, Wanted, str]] = {
    "provider missing": (
        HEAD + SERVICE,
        Wanted(),
        r"mta\.yaml:12:12: registry refers to srv-api, which nothing provides\. Correct ",
    ),
    "property missing": (
        HEAD + MODULE.replace("srv-url:", "x:") + SERVICE,
        Wanted(),
        "srv-api provides no property srv-url",
    ),
    "not required": (
        HEAD + MODULE + SERVICE.replace("- name: srv-api", "- name: other"),
        Wanted(),
        "does not require it. Add srv-api to requires of registry",
    ),
    "unknown module": (
        GUIDE,
        Wanted(sessions=Sessions(modules=("nobody",))),
        "has no module nobody. There are incident-management-mtx, ",
    ),
    "no approuter": (HEAD + MODULE, Wanted(sessions=Sessions()), "No module is known as an application router"),
    "bad name": (GUIDE, Wanted(sessions=Sessions(resource="a b")), "sessions.resource 'a b' is not a name"),
    "bad number": (
        GUIDE,
        Wanted(sessions=Sessions(back_off_multiplier=0)),
        "sessions.back_off_multiplier 0 is not a positive number",
    ),
    "routes in a whole mapping": (
        HEAD
        + MODULE.replace("srv-url: ${default-url}", "srv-url: {a: '${default-url}'}").replace(
            "  provides", "  parameters: {routes: [{route: a.b}]}\n  provides"
        )
        + SERVICE,
        Wanted(),
        "in a property that is a whole mapping or list no route is live",
    ),
    "by way of a resource that an application uses": (
        FORMS["by way of a resource"].replace(
            "resources:", "- {name: ui, requires: [{name: via, properties: {A: '~{u}'}}]}\nresources:"
        ),
        Wanted(),
        "by way of via, and ui has to call the idle version",
    ),
    "by way of two resources": (
        FORMS["by way of a resource"]
        .replace("base: ~{", "base: ~{via/u} ~{")
        .replace("- name: srv-api\n  p", "- name: via\n  - name: srv-api\n  p"),
        Wanted(),
        "leads to an idle URL by way of via",
    ),
    "no live form": (
        HEAD + MODULE.replace("  provides", "  parameters: {routes: [{route: '*.d.example'}]}\n  provides") + SERVICE,
        Wanted(),
        "has no live form of",
    ),
    "routes before schema 3": (
        (HEAD + MODULE.replace("  provides", "  parameters: {routes: [{route: a.b}]}\n  provides") + SERVICE).replace(
            "3.3.0", '"2.1"'
        ),
        Wanted(),
        "use-live-routes needs schema version 3",
    ),
    "an own name in a namespace": (
        HEAD
        + MODULE.replace("${default-url}", "${app-name}").replace(
            "  provides", "  parameters: {app-name: a}\n  provides"
        )
        + SERVICE,
        Wanted(namespace="blue"),
        r"has no live form of \$\{app-name\}",
    ),
    "a reference before schema 3": (
        (HEAD + MODULE + SERVICE.replace("~{srv-api/srv-url}", "${default-url}")).replace("3.3.0", '"2.1"'),
        Wanted(),
        "a reference in a resource needs schema version 3",
    ),
    "shared with a module": (
        HEAD
        + MODULE.replace("  provides", "  properties: {U: &u '~{srv-api/srv-url}'}\n  provides")
        + SERVICE.replace("~{srv-api/srv-url}/callback", "*u"),
        Wanted(),
        "a module uses this value by its anchor",
    ),
    "a shared mapping": (
        HEAD + MODULE.replace("properties:", "properties: &all").rstrip() + "\n  properties: *all\n" + SERVICE,
        Wanted(),
        "others may use this by its anchor",
    ),
    "in two pieces": (
        HEAD + MODULE + SERVICE.replace("~{srv-api/srv-url}/callback", '"~{srv-api/srv\\x2durl}"'),
        Wanted(),
        "is not written in one piece",
    ),
    "a variable that is a mapping and has a key too many": (
        GUIDE.replace("      TENANT_HOST_PATTERN", "      EXT_SESSION_MGT: {keepAlive: 1}\n      TENANT_HOST_PATTERN"),
        Wanted(sessions=Sessions()),
        "keepAlive in EXT_SESSION_MGT stop it. Remove them",
    ),
    "an extension alone": (
        HEAD.replace("version: 1.0.0\n", "extends: app\n"),
        Wanted(),
        "is an extension of app. Give the descriptor",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_can_not_be_done_is_refused_with_its_place_and_what_to_do(name: str) -> None:
    text, want, message = REFUSALS[name]
    with pytest.raises(ZdmError, match=message) as caught:
        make_safe(descriptor(text), want)
    assert isinstance(caught.value, (InputError, Refused))
    assert caught.value.advice


def test_one_place_that_can_not_be_mended_does_not_keep_the_others_from_it() -> None:
    text = GUIDE.replace("getDependencies: ~{mtx-api/mtx-url}", "getDependencies: ~{nobody/url} ~{mtx-api/mtx-url}")
    mended = mend(descriptor(text), Wanted())
    assert mended.text.count("~{mtx-api/mtx-live}") == 2
    (left,) = mended.left
    assert (left.object, left.mend) == (
        "incident-management-registry",
        "Correct ~{nobody/url}, or add an entry nobody to the provides of a module.",
    )
    assert "~{nobody/url}" in mended.text.splitlines()[left.line - 1]
    with pytest.raises(Refused, match="refers to nobody, which nothing provides") as caught:
        make_safe(descriptor(text), Wanted())
    assert caught.value.details["left"] == [str(left)]


def test_a_change_that_would_touch_more_is_not_made() -> None:
    """The first property is written as hardly anybody does: a line behind it would not be a part of its mapping."""
    odd = MODULE.replace("      srv-url: ${default-url}\n", "      ? srv-url\n      : ${default-url}\n")
    more = "  - name: more\n    properties: {url: '${default-url}'}\n"
    text = HEAD + odd + more + SERVICE.replace("- name: srv-api", "- name: srv-api\n  - name: more")
    mended = mend(descriptor(text + "      v: ~{more/url}\n"), Wanted())
    assert mended.text == (text + "      v: ~{more/live}\n").replace(
        "{url: '${default-url}'}", "{url: '${default-url}', live: \"${default-live-url}\"}"
    )
    assert [place.message for place in mended.left] == ["the change would touch more than this place."]


def test_a_text_that_two_use_is_changed_for_both_or_for_none() -> None:
    other = (
        MODULE.replace("modules:\n", "")
        .replace("srv", "own")
        .replace("  provides", "  parameters: {host: h}\n  provides")
    )
    binding = "  requires:\n  - name: reg\n    parameters: {config: "
    resource = "resources:\n- {name: reg, type: org.cloudfoundry.managed-service}\n"
    shared = f"{HEAD}{MODULE}{binding}&c {{url: '${{default-url}}'}}}}\n{other}{binding}*c}}\n{resource}"
    mended = mend(descriptor(shared), Wanted())
    assert mended.text == shared
    assert [place.object for place in mended.left] == ["srv", "own"]
    same = shared.replace("  parameters: {host: h}\n", "")
    assert mend(descriptor(same), Wanted()).text == same.replace("url: '${default-url}'", "url: '${default-live-url}'")


def test_base_and_extension_belong_together() -> None:
    extension = descriptor("_schema-version: 3.3.0\nID: x\nextends: app\nmodules:\n- name: nobody\n", "a.mtaext")
    with pytest.raises(InputError, match=r"a\.mtaext:5:3: app has no module nobody\. There are srv\."):
        make_safe(extension, Wanted(), descriptor(HEAD + MODULE))
    with pytest.raises(InputError, match="is not an extension"):
        make_safe(descriptor(HEAD), Wanted(), descriptor(HEAD))
    with pytest.raises(InputError, match="Sessions are set up in the descriptor"):
        make_safe(extension, Wanted(sessions=Sessions()), descriptor(HEAD))
