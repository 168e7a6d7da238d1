module github.com/go-heartbeat/heartbeat/examples/contract

go 1.26.0

require github.com/go-heartbeat/heartbeat v0.0.0

require golang.org/x/sync v0.24.0 // indirect

replace github.com/go-heartbeat/heartbeat => ../..
