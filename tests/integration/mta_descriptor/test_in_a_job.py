# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One job as a user writes it: lint, mend, write the secret's extension, lint what is deployed, remove the secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from ansible_collections.zdm.landscape.plugins.module_utils.mta.descriptor.descriptor import Descriptor
from ansible_collections.zdm.landscape.plugins.module_utils.mta.lint.rules import lint
from ansible_collections.zdm.landscape.tests.unit.mta.descriptors import GUIDE

SECRET = "VqO446NAgSd795NiBW7SXPvuKKH4pDso3qVcWC1GyLa2Zq6XASh0FNZ3b26ePlZe"
PLAYBOOK = """\
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - name: Lint
      zdm.landscape.mta_descriptor_info:
        path: mta.yaml
        report: {path: before.xml}
        fail_on: error
      ignore_errors: true
    - name: Mend
      zdm.landscape.mta_descriptor:
        path: mta.yaml
        longest_upgrade: 30m
        sessions: {resource: incident-session-management, retry_timeout_ms: 10000, back_off_multiplier: 10}
      register: made
    - name: Deploy
      block:
        - name: Write the secret
          ansible.builtin.copy:
            content: >-
              {{ made.mta.id | zdm.landscape.session_extension(made.mta.schema_version, made.session_modules, secret) }}
            dest: "{{ playbook_dir }}/session.mtaext"
            mode: "0600"
          no_log: true
        - name: Lint what is deployed
          zdm.landscape.mta_descriptor_info:
            path: mta.yaml
            extensions: [session.mtaext]
            longest_upgrade: 30m
            report: {path: after.xml}
            fail_on: warning
        - name: A short secret is refused
          ansible.builtin.debug:
            msg: "{{ 'x' | zdm.landscape.session_extension('3.1', ['approuter'], 'short-and-secret') }}"
          ignore_errors: true
      always:
        - name: Remove the secret
          ansible.builtin.file: {path: "{{ playbook_dir }}/session.mtaext", state: absent}
"""


def test_a_job_lints_mends_and_deploys_with_a_secret_that_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "mta.yaml").write_text(GUIDE)
    (tmp_path / "job.yml").write_text(PLAYBOOK)
    (tmp_path / "vars.yml").write_text(f"secret: {SECRET}\n")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "job.yml", "--diff", "-v", "-e", "@vars.yml"]
    env = {
        **os.environ,
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "false",
    }
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert SECRET not in output
    assert "short-and-secret" not in output.replace("'short-and-secret') }}", "")
    assert "has 16 characters, fewer than 64" in output
    assert "+          mtx-live: ${default-live-url}\n" in output
    suites = [ElementTree.parse(tmp_path / name).getroot() for name in ("before.xml", "after.xml")]
    assert [suite.get("failures") for suite in suites] == ["4", "0"]
    assert not (tmp_path / "session.mtaext").exists()
    assert {one.severity for one in lint(Descriptor.load(str(tmp_path / "mta.yaml")), 1_800_000)} == {"hint"}
