# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of others in messages of ours."""

from __future__ import annotations

import pytest
from ansible_collections.zdm.landscape.plugins.module_utils.core.errors import sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("No space left", "No space left."),
        ("No space left. ", "No space left."),
        ("Why?\n  Who knows!", "Why? Who knows!"),
        (" \n", "It gives no reason."),
    ],
)
def test_words_are_a_sentence(text: str, said: str) -> None:
    assert sentence(text) == said
