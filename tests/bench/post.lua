wrk.method = "POST"
wrk.body = '{"digits":"7"}'
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "image/png"
done = function(summary, latency, requests)
   io.write(string.format("RESULT %d %d %d %.6f %.6f\n", summary.requests, summary.duration,
      summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
      latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
