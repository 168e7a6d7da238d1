package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/benbjohnson/litestream"
	_ "github.com/benbjohnson/litestream/file" // each backend registers its URL scheme when it is imported
)

// taggedBackends are the replica types that only a build with the tag
// "backends" has: see backends_all.go.
var taggedBackends = []string{"abs", "gs", "nats", "oss", "s3", "sftp", "webdav"}

// replicaClient returns a client for a replica URL. No error repeats the URL,
// which may hold a password.
func replicaClient(url string) (litestream.ReplicaClient, error) {
	replicaType := litestream.ReplicaTypeFromURL(url)
	if replicaType == "" {
		return nil, errors.New("not a replica URL such as file:///backup/app or s3://bucket/app")
	}
	client, err := litestream.NewReplicaClientFromURL(url)
	if err != nil && !backendsBuilt && slices.Contains(taggedBackends, replicaType) {
		return nil, fmt.Errorf("this program was built without %s replicas; build it with: go build -tags backends", replicaType)
	}
	return client, err
}
