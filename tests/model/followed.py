# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the model's rules the code follows: the replay expects those of a real run, and no other."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.zdm.landscape.tests.model.config import Rules

NOT_YET: tuple[str, ...] = ()
"""Rules of :class:`config.Rules` that the code doesn't follow yet. Whoever makes it follow one takes its name out."""

THE_CODE = replace(Rules(), **dict.fromkeys(NOT_YET, False))  # type: ignore[arg-type]
THE_PROTOCOL = Rules()
