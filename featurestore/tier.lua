-- Takes rows into the values of their keys. The rules are those of merge in online_value.go, which explains them; the form
-- of a value is in docs/formats/row.md. All keys lie in one slot.
-- KEYS: the writer's note, then the keys of rows.
-- ARGV: the claim and how many calls came before under it ('' for a call that only cuts), settled and floor as they stand
-- in heads, then for each key its entries, the winner first.
-- Returns nil when the claim is not held any more or calls before this one are gone; else a list of 1 for each key that has
-- beaten rows, else 0.
local sub, unpack = string.sub, struct.unpack
if ARGV[1] ~= '' then
  local note = redis.call('HMGET', KEYS[1], 'claim', 'calls')
  if note[1] ~= ARGV[1] or note[2] ~= ARGV[2] then return false end
  redis.call('HSET', KEYS[1], 'calls', ARGV[2] + 1, 'at', redis.call('TIME')[1])
end
local settled, floor = {unpack('>I4I4', ARGV[3])}, {unpack('>I4I4', ARGV[4])}

-- The entries of s from byte i on. A head is seven numbers in the winner's order; s, i and j say where the entry is.
local function entries(s, i)
  local out = {}
  while i <= #s do
    local e = {unpack('>I4I4I4I4I4I4I4I4', s, i)}
    e.s, e.i, e.j = s, i, i + 31 + e[8]
    if e.j > #s then error('a value is cut short') end
    out[#out + 1], i = e, e.j + 1
  end
  return out
end

local function compare(a, b, n)
  for i = 1, n do
    if a[i] ~= b[i] then return a[i] < b[i] and -1 or 1 end
  end
  return 0
end

local function past(e)
  if e[1] > settled[1] or e[1] == settled[1] and e[2] > settled[2] then return false end
  return e[5] < floor[1] or e[5] == floor[1] and e[6] <= floor[2]
end

local longer = {}
for k = 2, #KEYS do
  local value = redis.call('GET', KEYS[k])
  local was, changed, old = 1, not value, {}
  if value then was, old = string.byte(value, 1), entries(value, 2) end
  local new, flag = entries(ARGV[k + 3], 1), was
  local out, i, j = {}, 1, 1
  while old[i] or new[j] and was == 1 do
    local a, b, e = old[i], new[j], nil
    local order = not a and -1 or not b and 1 or compare(a, b, 7)
    local tie = a and b and compare(a, b, 6) == 0
    if order >= 0 then e = a else e, changed = b, true end
    if order >= 0 or tie then i = i + 1 end
    if order < 0 or tie then j = j + 1 end
    out[#out + 1] = e
    if past(e) then
      if old[i] or new[j] then flag = 2 end
      changed = changed or old[i] ~= nil
      break
    end
  end
  if (changed or flag ~= was) and #out > 0 then
    local parts = {string.char(flag)}
    for n = 1, #out do parts[n + 1] = sub(out[n].s, out[n].i, out[n].j) end
    redis.call('SET', KEYS[k], table.concat(parts))
  end
  longer[k - 1] = #out > 1 and 1 or 0
end
return longer
