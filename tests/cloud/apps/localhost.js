// Copyright (c) zdm.landscape contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Loaded before the application: names under localhost lead to this machine (RFC 6761), which the C library's resolver does not know.
const dns = require('dns')
const lookup = dns.lookup
dns.lookup = function (host, options, callback) {
  const name = typeof host === 'string' && host.endsWith('.localhost') ? 'localhost' : host
  return lookup.call(dns, name, options, callback)
}
