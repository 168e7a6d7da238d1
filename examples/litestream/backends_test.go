package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReplicaClient_everyBackend(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"file:///backup/app":               "file",
		"s3://bucket/app":                  "s3",
		"gs://bucket/app":                  "gs",
		"abs://account@container/app":      "abs",
		"sftp://user@host.example/app":     "sftp",
		"webdav://host.example/app":        "webdav",
		"webdavs://host.example/app":       "webdav",
		"nats://host.example/bucket":       "nats",
		"oss://bucket.oss.example.com/app": "oss",
	} {
		client, err := replicaClient(url)
		if backendsBuilt || want == "file" {
			require.NoError(t, err, url)
			assert.Equal(t, want, client.Type())
		} else {
			require.EqualError(t, err, "this program was built without "+want+" replicas; build it with: go build -tags backends", url)
		}
	}
	_, err := replicaClient("tape://drive/app")
	require.EqualError(t, err, `unsupported replica URL scheme: "tape"`)
}
