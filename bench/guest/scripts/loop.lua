-- SPDX-License-Identifier: Apache-2.0
--
-- Loops, tables, closures, strings and floating point in an interpreter that is small enough for the cache.

local n = tonumber(arg[1])
local sum, t = 0, {}
for i = 1, n do
	sum = (sum * 31 + i % 7) % 1000003
	t[i % 1024 + 1] = sum
end
local queens = 0
local function place(row, size, columns, up, down)
	if row > size then
		queens = queens + 1
		return
	end
	for c = 1, size do
		if not columns[c] and not up[row + c] and not down[row - c + size] then
			columns[c], up[row + c], down[row - c + size] = true, true, true
			place(row + 1, size, columns, up, down)
			columns[c], up[row + c], down[row - c + size] = nil, nil, nil
		end
	end
end
place(1, 7, {}, {}, {})
local parts = {}
for i = 1, n // 40 do
	parts[#parts + 1] = ("%d:%s"):format(i, string.rep("x", i % 9))
end
local text = table.concat(parts, ",")
local _, commas = text:gsub("x,", "")
local f = 0.0
for i = 1, n // 4 do
	f = f + 1 / (i * (i + 1.5))
end
table.sort(t)
print(sum, queens, #text, commas, string.format("%.17g", f), t[512])
