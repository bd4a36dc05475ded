// Copyright (c) zdm.landscape contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Hooks for tests: SLOW_MS delays the upgrade of a tenant, FAIL_TENANTS names tenants whose upgrade fails.
const cds = require('@sap/cds')
cds.on('served', () => {
  const deployment = cds.services['cds.xt.DeploymentService']
  deployment.prepend(() => deployment.on('upgrade', async (request, next) => {
    await new Promise(resolve => setTimeout(resolve, Number(process.env.SLOW_MS || 0)))
    if ((process.env.FAIL_TENANTS || '').split(',').includes(request.data.tenant)) throw new Error('simulated HDI deployment failure')
    return next()
  }))
})
