-- Copyright (c) zdm.landscape contributors
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later

-- The router's control commands, `zdm <verb> ...` on HAProxy's command line.
--
-- Loaded with lua-load: ONE state for all threads. A command runs without yielding between its checks and its edits (Lua
-- may be preempted after 10,000 instructions only, hence the limit of ids per command), so compare-and-set by epoch is
-- atomic. Every command checks all of its ids before it changes the first.
--
-- A block is put in place in two steps. While it is "soft", gate 1 holds or refuses already and gate 2, which comes after the
-- count, lets pass: a request that has just passed gate 1 is not refused for having come at the wrong moment. The command then
-- answers "soft" and is to be repeated some milliseconds later, which makes the block hard; the drain comes after that.
-- No command may yield: a CLI command that sleeps makes HAProxy 2.6 crash now and then.
--
-- Answers: "ok <n>", "soft <n>", "superseded <migration> <epoch>", "owned <id> <migration>", "chain <id> <id> <id>",
-- "nobody <id> <id>", "invalid <why>".

local FAR_MS = 9999999999999 -- a literal deadline: no clock can reach it by mistake
local FORMAT = 1
local SOFT_MS = 10 -- from gate 1 to gate 2 a request takes microseconds

local maps = {}
for _, name in ipairs({ "onboarded", "subdomains", "override", "block", "decommissioned", "router" }) do
  maps[name] = Map.new("maps/" .. name .. ".map", Map._str)
end

local epochs = {}      -- migration -> newest epoch seen
local softened = {}    -- id -> since when (ms) its block is soft
local edited = {}      -- "map/key" edited live since the start; the start's late load must not undo it
local ready = false

-- calls what(key, value) for every entry of a map's file
local function each_of_file(name, what)
  local file = io.open("maps/" .. name .. ".map", "r")
  if not file then return end
  for line in file:lines() do
    local key, value = line:match("^(%S+) (%S+)$")
    if key then what(key, value) end
  end
  file:close()
end

each_of_file("epochs", function(migration, epoch) epochs[migration] = tonumber(epoch) end)

-- Who leads to an id: id -> { ids that lead to it }. A map can't be searched for values.
local leading = {}

local function note_lead(id, before, after)
  if before and leading[before] then
    leading[before][id] = nil
    if next(leading[before]) == nil then leading[before] = nil end
  end
  if after then
    leading[after] = leading[after] or {}
    leading[after][id] = true
  end
end

each_of_file("override", function(id, target) note_lead(id, nil, target) end)

local function lookup(name, key)
  return maps[name]:lookup(key)
end

local function write(name, key, value)
  local path = "maps/" .. name .. ".map"
  if not ready then edited[name .. "/" .. key] = true end
  if name == "override" then note_lead(key, lookup(name, key), value ~= "-" and value or nil) end
  if value == "-" then
    core.del_map(path, key)
  else
    core.set_map(path, key, value)
  end
end

local function is_name(text)
  return text ~= nil and #text <= 63 and text:find("^%w[%w._-]*$") ~= nil
end

local function is_migration(text)
  return text ~= nil and #text <= 128 and text:find("^%w[%w._-]*$") ~= nil
end

local function is_value(text)
  return text ~= nil and #text <= 200 and text:find("^[%w._/|-]+$") ~= nil
end

-- mode, deadline, owner and "|soft" or "" of an id's live block, or nil
local function live_block(id, now)
  local mode, till, owner, soft = (lookup("block", id) or ""):match("^(%a+)|(%d+)|([^|]+)(.*)$")
  if mode and tonumber(till) > now then return mode, tonumber(till), owner, soft end
end

local function foreign_block(id, migration, now)
  local _, _, owner = live_block(id, now)
  if owner and owner ~= migration then return "owned " .. id .. " " .. owner end
end

-- compare-and-set of the migration's epoch; answers why not, or nil
local function enter(migration, epoch)
  -- 15 digits are exact in JSON, in a float and here
  epoch = epoch and #epoch <= 15 and epoch:find("^%d+$") and math.tointeger(tonumber(epoch))
  if not is_migration(migration) or not epoch then return "invalid migration or epoch" end
  if epoch < (epochs[migration] or 0) then
    return "superseded " .. migration .. " " .. string.format("%d", epochs[migration])
  end
  epochs[migration] = epoch
end

-- split "key=value" arguments from position `first` on; answers a list of pairs, or nil and why not
local function pairs_of(args, first)
  local result = {}
  for i = first, args.n do
    local key, value = args[i]:match("^([^=]+)=(.+)$")
    if not is_migration(key) or not is_value(value) then return nil, "invalid entry " .. args[i] end
    result[#result + 1] = { key, value }
  end
  return result
end

-- all ids from position `first` on are names and not in another migration's block; answers why not, or nil
local function refuse_ids(args, first, migration, now)
  for i = first, args.n do
    if not is_name(args[i]) then return "invalid id " .. args[i] end
    local why = foreign_block(args[i], migration, now)
    if why then return why end
  end
end

local function block(args, first, migration, mode, till, now)
  if mode ~= "hold" and mode ~= "reject" then return "invalid mode" end
  local why = refuse_ids(args, first, migration, now)
  if why then return why end
  local soft_ids = 0
  for i = first, args.n do
    local id = args[i]
    local _, current, _, suffix = live_block(id, now)
    -- a far block never becomes a lease again: the routers fail closed until commit or undo
    local deadline = current and current >= FAR_MS and FAR_MS or till
    local value = mode .. "|" .. string.format("%d", deadline) .. "|" .. migration
    if suffix == nil then softened[id] = now end
    if suffix == "" or math.abs(now - (softened[id] or 0)) >= SOFT_MS then
      softened[id] = nil
    else
      soft_ids = soft_ids + 1
      value = value .. "|soft"
    end
    write("block", id, value)
  end
  if soft_ids > 0 then return "soft " .. soft_ids end
  return "ok " .. (args.n - first + 1)
end

local verbs = {}

function verbs.epoch(args)
  return enter(args[3], args[4]) or "ok 0"
end

-- zdm lease <migration> <epoch> <mode> <lease_ms> <id>...
function verbs.lease(args, now)
  local length = args[6] and #args[6] <= 13 and args[6]:find("^%d+$") and math.tointeger(tonumber(args[6]))
  if not length or length <= 0 or now + length >= FAR_MS then return "invalid lease" end
  return enter(args[3], args[4]) or block(args, 7, args[3], args[5], now + length, now)
end

-- zdm close <migration> <epoch> <mode> <id>...
function verbs.close(args, now)
  return enter(args[3], args[4]) or block(args, 6, args[3], args[5], FAR_MS, now)
end

-- zdm release <migration> <epoch> <id>...
function verbs.release(args, now)
  local why = enter(args[3], args[4]) or refuse_ids(args, 5, args[3], now)
  if why then return why end
  for i = 5, args.n do write("block", args[i], "-") end
  return "ok " .. (args.n - 4)
end

-- zdm map <migration> <epoch> <id>=<canonical id or ->...
function verbs.map(args, now)
  local why = enter(args[3], args[4])
  if why then return why end
  local entries, wrong = pairs_of(args, 5)
  if not entries then return wrong end
  local leads = {}
  for _, entry in ipairs(entries) do
    if not is_name(entry[1]) or not (entry[2] == "-" or is_name(entry[2])) then return "invalid entry of " .. entry[1] end
    if entry[2] ~= "-" then leads[entry[1]] = entry[2] end
  end
  for _, entry in ipairs(entries) do
    if leads[leads[entry[1]]] then return "chain " .. entry[1] .. " " .. entry[2] .. " " .. leads[entry[2]] end
    why = foreign_block(entry[1], args[3], now) or foreign_block(entry[2], args[3], now)
    if why then return why end
  end
  for _, entry in ipairs(entries) do write("override", entry[1], entry[2]) end
  for _, entry in ipairs(entries) do
    if (lookup("override", entry[1]) or "-") ~= entry[2] then return "invalid override of " .. entry[1] .. " after the edit" end
  end
  return "ok " .. #entries
end

-- why an edit outside of a migration would make a chain or lead to nobody, as if it had been made; or nil
local function refuse_leads(name, entries)
  local wanted = {}
  for _, entry in ipairs(entries) do wanted[entry[1]] = entry[2] end
  local function after(map, key)
    local value = (map == name and wanted[key]) or lookup(map, key)
    return value ~= "-" and value or nil
  end
  for _, entry in ipairs(entries) do
    local key, value = entry[1], entry[2]
    if name == "override" and value ~= "-" then
      if not after("onboarded", value) then return "nobody " .. key .. " " .. value end
      if after("override", value) then return "chain " .. key .. " " .. value .. " " .. after("override", value) end
      for other in pairs(leading[key] or {}) do
        if after("override", other) == key then return "chain " .. other .. " " .. key .. " " .. value end
      end
    elseif name == "onboarded" and value == "-" then
      for other in pairs(leading[key] or {}) do return "nobody " .. other .. " " .. key end
    end
  end
end

-- zdm edit <map> <key>=<value or ->...   outside of a migration; refused for an id with a live block
function verbs.edit(args, now)
  local name = args[3]
  if not maps[name or ""] or name == "block" or name == "router" then return "invalid map" end
  local entries, wrong = pairs_of(args, 4)
  if not entries then return wrong end
  for _, entry in ipairs(entries) do
    local touched = { entry[1] }
    if name == "override" or name == "subdomains" then touched = { entry[1], entry[2], lookup(name, entry[1]) } end
    for _, id in ipairs(touched) do
      local _, _, owner = live_block(id, now)
      if owner then return "owned " .. id .. " " .. owner end
    end
  end
  local why = refuse_leads(name, entries)
  if why then return why end
  for _, entry in ipairs(entries) do write(name, entry[1], entry[2]) end
  return "ok " .. #entries
end

-- zdm load <map> <key>=<value or ->...   the start's late load; keys edited live since the start stay as they are
function verbs.load(args)
  local name = args[3]
  local entries, wrong = pairs_of(args, 4)
  if not entries then return wrong end
  if ready then return "invalid load: the router is ready" end
  if name == "epochs" then
    for _, entry in ipairs(entries) do
      epochs[entry[1]] = math.max(epochs[entry[1]] or 0, math.tointeger(tonumber(entry[2])) or 0)
    end
  elseif maps[name or ""] and name ~= "router" then
    for _, entry in ipairs(entries) do
      if not edited[name .. "/" .. entry[1]] then
        write(name, entry[1], entry[2])
        edited[name .. "/" .. entry[1]] = nil
      end
    end
  else
    return "invalid map"
  end
  return "ok " .. #entries
end

function verbs.ready()
  core.set_map("maps/router.map", "ready", "1")
  ready = true
  edited = {}
  return "ok 0"
end

-- zdm inflight <id>...   requests that passed the gates and are not answered yet
function verbs.inflight(args)
  local total = 0
  for i = 3, args.n do
    if not is_name(args[i]) then return "invalid id " .. args[i] end
    local entry = core.backends["inflight"].stktable:lookup(args[i])
    if entry then total = total + entry.conn_cur end
  end
  return "ok " .. string.format("%d", total)
end

function verbs.state(_, now)
  local lines = { "ok " .. FORMAT, "ready " .. (ready and 1 or 0), "clock " .. string.format("%d", now) }
  for migration, epoch in pairs(epochs) do
    lines[#lines + 1] = "epoch " .. migration .. " " .. string.format("%d", epoch)
  end
  return table.concat(lines, "\n")
end

core.register_cli({ "zdm" }, "zdm <verb> ...: state of tenants and migrations", function(applet, ...)
  local args = table.pack(...)
  local verb = verbs[args[2] or ""]
  -- HAProxy drops arguments beyond its limit without a word: never act on a list that may be cut
  local answer = "invalid verb"
  if args.n >= 60 then
    answer = "invalid number of arguments"
  elseif verb then
    answer = verb(args, math.tointeger(applet.f:date(0, "ms")))
  end
  applet:send(answer .. "\n")
end)
