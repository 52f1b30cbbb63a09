-- Builds the sandbox of scripts. Runs once per interpreter, with the functions written in Rust and
-- the table of globals, and returns the environment of scripts and the function that runs one.
--
-- Redis patches Lua so that tables can be read-only. Here scripts get an empty table instead, whose
-- metatable reads the contents and refuses writes. What writes a table without asking its metatable
-- is wrapped (rawset), or undone after a script that has got hold of it (table.insert).

local native, globals = ...

local error, getmetatable, next, pairs, pcall, rawget, rawset, select, setmetatable, tostring, type, xpcall =
  error, getmetatable, next, pairs, pcall, rawget, rawset, select, setmetatable, tostring, type, xpcall
local resume, loadstring, concat, find, match, sub =
  coroutine.resume, loadstring, table.concat, string.find, string.match, string.sub

local READONLY = 'Attempt to modify a readonly table'

-- Each read-only table and what it shows.
local contents_of = {}
-- Whether the script may have got hold of table.insert.
local may_insert = false

local function refuse()
  error(READONLY, 2)
end

-- `metatable` is what getmetatable returns; `index` looks up the contents if that is not all it does.
local function readonly(contents, metatable, index)
  local table = {}
  contents_of[table] = contents
  return setmetatable(table, {
    __index = index or contents,
    __newindex = refuse,
    __metatable = metatable or false,
  })
end

-- Errors that a script catches: a script that has to stop cannot go on by catching that, and pcall
-- shows the error of a command as its text.
local function caught(ok, ...)
  if ok then
    return true, ...
  end
  local err = native.caught((...))
  if type(err) == 'table' and type(rawget(err, 'err')) == 'string' then
    err = rawget(err, 'err')
  end
  return false, err
end

local function resumed(ok, ...)
  if ok then
    return true, ...
  end
  return false, native.caught((...))
end

function globals.pcall(...)
  return caught(pcall(...))
end

-- A script that has to stop cannot go on by catching that. Its own handler is not called: Lua calls
-- no hook while it handles an error of a hook, so nothing could stop the handler.
local function handled(ok, ...)
  if not ok then
    native.caught(nil)
  end
  return ok, ...
end

function globals.xpcall(f, handler)
  return handled(xpcall(f, function(err)
    return handler(native.caught(err))
  end))
end

local coroutines = {}
for name, f in pairs(coroutine) do
  coroutines[name] = f
end
function coroutines.resume(...)
  return resumed(resume(...))
end

function globals.rawset(table, ...)
  if type(table) ~= 'table' then
    error("bad argument #1 to 'rawset' (table expected, got " .. type(table) .. ')', 2)
  elseif contents_of[table] then
    error(READONLY, 0)
  end
  return rawset(table, ...)
end

-- What a read-only table shows; other tables are shown as they are.
local function shown(table)
  local contents = contents_of[table]
  if contents then
    may_insert = true
    return contents
  end
  return table
end

function globals.rawget(table, ...)
  return rawget(shown(table), ...)
end

function globals.setmetatable(table, ...)
  if type(table) ~= 'table' then
    error("bad argument #1 to 'setmetatable' (table expected, got " .. type(table) .. ')', 2)
  elseif contents_of[table] then
    error(READONLY, 0)
  end
  return setmetatable(table, ...)
end

function globals.next(table, ...)
  return next(shown(table), ...)
end

function globals.pairs(...)
  local table = ...
  if type(table) ~= 'table' then
    local found = select('#', ...) == 0 and 'no value' or type(table)
    error("bad argument #1 to 'pairs' (table expected, got " .. found .. ')', 2)
  end
  if contents_of[table] then
    return globals.next, table, nil
  end
  return next, table, nil
end

-- Only source text can be loaded. The name of a chunk ends at its first NUL, as Lua takes it: the
-- parser keeps no reference of its own to a name, so it has to be a string that lives on here.
local function load_text(text, name)
  if sub(text, 1, 1) == '\27' then
    return nil, 'precompiled code cannot be loaded'
  end
  name = match(name, '^%Z*')
  native.before_step(#text)
  return loadstring(text, name)
end

local function check_text(f, text, position)
  local kind = type(text)
  if kind == 'number' then
    return tostring(text)
  elseif kind ~= 'string' then
    error("bad argument #" .. position .. " to '" .. f .. "' (string expected, got " .. kind .. ')', 3)
  end
  return text
end

function globals.loadstring(text, name)
  text = check_text('loadstring', text, 1)
  return load_text(text, name == nil and text or check_text('loadstring', name, 2))
end

function globals.load(f, name)
  if type(f) ~= 'function' then
    error("bad argument #1 to 'load' (function expected, got " .. type(f) .. ')', 2)
  end
  local pieces = {}
  while true do
    local piece = f()
    if piece == nil or piece == '' then
      break
    elseif type(piece) ~= 'string' then
      return nil, 'reader function must return a string'
    end
    pieces[#pieces + 1] = piece
  end
  return load_text(concat(pieces), name == nil and '=(load)' or check_text('load', name, 2))
end

-- What it sets would outlive the script.
local HARMLESS = { collect = true, count = true, step = true }
local collectgarbage = collectgarbage
function globals.collectgarbage(option, ...)
  if option == nil or HARMLESS[option] then
    native.before_step(option == 'count' and 0 or collectgarbage('count') * 1024)
    return collectgarbage(option or 'collect', ...)
  elseif option == 'stop' or option == 'restart' or option == 'setpause' or option == 'setstepmul' then
    return 0
  end
  error("bad argument #1 to 'collectgarbage' (invalid option '" .. tostring(option) .. "')", 2)
end

-- A library: Lua's own functions, and those written in Rust.
local function library(own, rust)
  local library = {}
  for name, value in pairs(own) do
    library[name] = value
  end
  for name, value in pairs(rust) do
    library[name] = value
  end
  return readonly(library)
end

globals.redis = readonly(native.redis)
globals.coroutine = readonly(coroutines)
globals.table = readonly(table, false, function(_, name)
  may_insert = may_insert or name == 'insert'
  return table[name]
end)
globals.math = library(math, native.math)

-- The functions of strings whose work grows with a string, and that are written in Rust for that.
local gmatch_next, gsub_next, gsub_text = native.string.gmatch_next, native.string.gsub_next, native.string.gsub_text

local function gmatch(text, pattern)
  text, pattern = check_text('gmatch', text, 1), check_text('gmatch', pattern, 2)
  local at = 0
  local function advance(next_at, ...)
    at = next_at
    return ...
  end
  return function()
    if at then
      return advance(gmatch_next(text, pattern, at))
    end
  end
end

-- Adds what is between two matches and the replacement of the second one. Returns where that starts and ends.
local function replace(pieces, text, replacement, at, from, to, ...)
  if not from then
    return nil
  end
  local value
  if type(replacement) == 'table' then
    value = replacement[(...)]
  else
    value = replacement(...)
  end
  local kind = type(value)
  if not value then
    value = sub(text, from + 1, to)
  elseif kind ~= 'string' and kind ~= 'number' then
    error('invalid replacement value (a ' .. kind .. ')', 3)
  end
  pieces[#pieces + 1] = sub(text, at + 1, from)
  pieces[#pieces + 1] = value
  return from, to
end

local function gsub(text, pattern, replacement, max)
  local kind = type(replacement)
  if kind ~= 'function' and kind ~= 'table' then
    return gsub_text(text, pattern, replacement, max)
  end
  text, pattern = check_text('gsub', text, 1), check_text('gsub', pattern, 2)
  max = tonumber(max) or #text + 1
  local is_anchored = sub(pattern, 1, 1) == '^'
  local pieces, at, count = {}, 0, 0
  while count < max do
    local from, to = replace(pieces, text, replacement, at, gsub_next(text, pattern, at))
    if not from then
      break
    end
    count = count + 1
    at = to
    if from == to then
      if to == #text then
        break
      end
      pieces[#pieces + 1] = sub(text, to + 1, to + 1)
      at = to + 1
    end
    if is_anchored then
      break
    end
  end
  pieces[#pieces + 1] = sub(text, at + 1)
  return concat(pieces), count
end

local strings = {}
for name, f in pairs(string) do
  strings[name] = f
end
strings.gmatch, strings.gfind, strings.gsub = gmatch, gmatch, gsub
globals.string = library(strings, {
  find = native.string.find,
  match = native.string.match,
  rep = native.string.rep,
  upper = native.string.upper,
  lower = native.string.lower,
  reverse = native.string.reverse,
})
globals.os = library({}, native.os)
globals.bit = library({}, native.bit)
globals.struct = library({}, native.struct)
globals.cjson = library({
  -- The settings hold for one script, so that nothing needs an instance of its own.
  new = function()
    return globals.cjson
  end,
}, native.cjson)
globals.cmsgpack = library({}, native.cmsgpack)

-- The methods of strings.
local metatable = getmetatable('')
metatable.__index = globals.string
metatable.__metatable = readonly({ __index = globals.string })

for _, name in ipairs({
  '_VERSION', 'assert', 'error', 'gcinfo', 'getmetatable', 'ipairs', 'rawequal', 'select', 'tonumber', 'tostring',
  'type', 'unpack',
}) do
  globals[name] = _G[name]
end

setmetatable(globals, {
  __index = function(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
  end,
})
local environment = readonly(globals, readonly({}))
rawset(globals, '_G', environment)

-- The error that ends a script, with the place it comes from.
local function describe(err)
  local source, line = native.place()
  local text
  err = native.value(err)
  if type(err) == 'table' then
    text = rawget(err, 'err')
  else
    text = 'ERR ' .. tostring(err)
  end
  return { err = text, source = source, line = line }
end

-- Removes what a script has inserted into read-only tables.
local function remove_inserted()
  may_insert = false
  for table in pairs(contents_of) do
    while next(table) ~= nil do
      rawset(table, next(table), nil)
    end
  end
end

-- Runs a compiled script, and removes what it has left.
local function run(script, keys, args)
  globals.KEYS, globals.ARGV = keys, args
  local ok, result = xpcall(script, describe)
  globals.KEYS, globals.ARGV = nil, nil
  if may_insert then
    remove_inserted()
  end
  return ok, result
end

return environment, run
