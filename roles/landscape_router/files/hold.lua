-- Copyright (c) zdm.landscape contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later

-- Park a request while the router is not ready or its tenant is blocked in mode "hold".
-- Loaded with lua-load-per-thread: no lock is shared with other threads.

local block = Map.new("maps/block.map", Map._str)
local router = Map.new("maps/router.map", Map._str)

local function milliseconds(duration)
  local number, unit = duration:match("^(%d+)(%a+)$")
  return tonumber(number) * ({ ms = 1, s = 1000, m = 60000 })[unit]
end
local HOLD_MAX_MS = milliseconds(os.getenv("ZDM_HOLD_MAX") or "10s")

-- Few parked requests of a tenant are looked at often, many rarely: about 5 looks per millisecond at most.
local function pause(txn)
  local parked = txn.f:sc1_conn_cur() or 1
  local wait = math.min(50, math.max(4, parked // 5))
  core.msleep(wait + math.random(0, wait // 4))
end

local function gate(id, now)
  if not router:lookup("ready") then return "hold" end
  local mode, till = (block:lookup(id) or ""):match("^(%a+)|(%d+)|")
  if not mode or now >= tonumber(till) then return "open" end
  return mode
end

-- reads txn.id; answers in txn.gate: open, reject (the block's mode changed), stopping or timeout; and in txn.held_ms for how long
core.register_action("zdm_hold", { "http-req" }, function(txn)
  local id = txn:get_var("txn.id")
  local since = txn:get_var("txn.held_since") or txn.f:date(0, "ms")
  txn:set_var("txn.held_since", since)
  local verdict, now
  repeat
    now = txn.f:date(0, "ms")
    verdict = gate(id, now)
    if verdict == "hold" then
      local stopping = txn.f:stopping() -- a number in older versions of HAProxy, a boolean in newer ones
      if stopping == 1 or stopping == true then
        verdict = "stopping" -- this worker's maps are not edited any more
      elseif now - since >= HOLD_MAX_MS then
        verdict = "timeout"
      else
        pause(txn)
      end
    end
  until verdict ~= "hold"
  txn:set_var("txn.gate", verdict)
  txn:set_var("txn.held_ms", math.max(0, math.tointeger(now - since)))
end, 0)
