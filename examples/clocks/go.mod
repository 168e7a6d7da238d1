module github.com/go-heartbeat/heartbeat/examples/clocks

go 1.26.0

require (
	github.com/benbjohnson/clock v1.3.5
	github.com/go-heartbeat/heartbeat v0.0.0
	github.com/jonboulle/clockwork v0.5.0
	github.com/juju/clock v1.1.1
	github.com/stretchr/testify v1.12.1
	k8s.io/utils v0.0.0-20261023123148-ca04ba58ecab
)

require (
	github.com/juju/errors v0.0.0-20220203013757-bd733f3c86b9 // indirect
	github.com/juju/loggo v0.0.0-20210728185423-eebad3a902c4 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace github.com/go-heartbeat/heartbeat => ../..
