-- wrk's side of the closed loop: sends the bodies of a file in turn, keeps every answer, prints what was measured.
-- Arguments: file with one body a line; file for the answers, each a line "<status> <body>".

local requests, last = {}, 0
local answers

function init(args)
  local headers = {["Content-Type"] = "application/json", ["Host"] = wrk.headers["Host"]}
  for body in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", "/predict", headers, body)
  end
  answers = io.open(args[2], "w")
end

function request()
  last = last % #requests + 1
  return requests[last]
end

function response(status, headers, body)
  answers:write(status, " ", (body:gsub("\n", "")), "\n")
end

function done(summary, latency, requests)
  io.write("MEASURED {\"requests\":", summary.requests, ",\"microseconds\":", summary.duration)
  local failed = summary.errors
  io.write(",\"socket_errors\":", failed.connect + failed.read + failed.write + failed.timeout)
  io.write(",\"latencies_us\":[")
  for index = 1, #latency do
    local value, count = latency(index)
    io.write(index > 1 and "," or "", "[", value, ",", count, "]")
  end
  io.write("]}\n")
end
