"""What is seen of the requests. Nothing here decides what a client is answered, and no failure here reaches one.

`observer` is told of each request and batch by the replica, and hands on what is configured: stages to the metrics,
texts and answers to `drift`, a sample of the requests to `request_log` (whose `log_lines` say what stands in a line)
and to `tracing`. `observing` makes and ends these as the configuration changes, and reads what is read by the clock.

What is not configured costs a comparison with None for each request.
"""
