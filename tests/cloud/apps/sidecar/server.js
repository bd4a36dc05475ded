// Copyright (c) zdm.landscape contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Hooks for tests, read from the file HOOKS while a tenant is upgraded: slow_ms delays it, fail_tenants names those whose upgrade fails.
const cds = require('@sap/cds')
const fs = require('fs')
cds.on('served', () => {
  const deployment = cds.services['cds.xt.DeploymentService']
  deployment.prepend(() => deployment.on('upgrade', async (request, next) => {
    const hooks = () => JSON.parse(fs.readFileSync(process.env.HOOKS))
    const begun = Date.now()
    while (Date.now() < begun + hooks().slow_ms) await new Promise(resolve => setTimeout(resolve, 20))
    if (hooks().fail_tenants.includes(request.data.tenant)) throw new Error('simulated HDI deployment failure')
    return next()
  }))
})
