# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment is given: extension descriptors in no file, parameters with values that the service takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import InputError
from ansible_collections.zdm.landscape.plugins.module_utils.mta.archive import read_extensions
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.parameters import further
from ansible_collections.zdm.landscape.plugins.module_utils.mta.deployment.request import wanted
from ansible_collections.zdm.landscape.plugins.modules.mta_deploy import OWN


def test_extension_descriptors_in_no_file_come_after_the_others(tmp_path: Path) -> None:
    file = tmp_path / "eu.mtaext"
    file.write_text("ID: eu\nextends: shop\n")
    found = read_extensions([str(file)], "shop", ["ID: secret\nextends: eu\n"])
    assert [(extension.name, extension.id) for extension in found] == [("eu.mtaext", "eu"), ("secret.mtaext", "secret")]
    with pytest.raises(InputError, match="Extension descriptor 2 of extension_texts has no ID or no extends") as raised:
        read_extensions([], "shop", ["ID: secret\nextends: shop\n", "password: hidden\n"])
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("given", [{"extensions": ["a.mtaext"]}, {"extension_texts": ["ID: a"]}])
def test_extension_descriptors_belong_to_an_archive(given: dict[str, Any]) -> None:
    params = {name: option.get("default") for name, option in OWN.items()}
    with pytest.raises(InputError, match="given without archive"):
        wanted({**params, "state": "aborted", "mta_id": "a", **given}, None, [])


@pytest.mark.parametrize("value", [None, "", [True], {"a": 1}])
def test_values_that_the_service_can_not_take_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="noRestartSubscribedApps of parameters is no value"):
        further({"noRestartSubscribedApps": value}, "DEPLOY")
