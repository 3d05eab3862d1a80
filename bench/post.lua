-- The requests of a load: POST /v1/payments, every one with a key of its own, the amounts over all three lanes.
-- Answers are counted by status, and printed with the latencies as one line of JSON.
-- Arguments: a prefix for the keys that no other run has.
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

function init(args)
  accepted, other, sent = 0, 0, 0
  local keys = string.format("%s-%d-%%09d", args[1], number)
  local width = #string.format(keys, 0)
  templates = {}
  for at, amount in ipairs({ 440, 5000, 20000 }) do
    local body = string.format('{"amount":%d,"currency":"USD","idempotency_key":"%s"}', amount, keys)
    templates[at] = string.format(
      "POST /v1/payments HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
      wrk.host, #body - #keys + width) .. body
  end
end

function request()
  sent = sent + 1
  return string.format(templates[sent % 3 + 1], sent)
end

function response(status)
  if status == 202 then accepted = accepted + 1 else other = other + 1 end
end

function done(summary, latency)
  local accepted, other = 0, 0
  for _, thread in ipairs(threads) do
    accepted = accepted + thread:get("accepted")
    other = other + thread:get("other")
  end
  local errors = summary.errors
  print(string.format(
    '{"accepted":%d,"other":%d,"broken":%d,"elapsed_s":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}',
    accepted, other, errors.connect + errors.read + errors.write + errors.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
