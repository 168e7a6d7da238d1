module github.com/go-heartbeat/heartbeat/examples/systemd

go 1.26.0

require (
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/go-heartbeat/heartbeat v0.0.0
)

require (
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.1.0 // indirect
)

replace github.com/go-heartbeat/heartbeat => ../..
