//go:build backends

package main

// The replicas that are not files. They are behind a build constraint since
// compiling the clouds' SDKs takes minutes, and the demonstration needs none.
import (
	_ "github.com/benbjohnson/litestream/abs"
	_ "github.com/benbjohnson/litestream/gs"
	_ "github.com/benbjohnson/litestream/nats"
	_ "github.com/benbjohnson/litestream/oss"
	_ "github.com/benbjohnson/litestream/s3"
	_ "github.com/benbjohnson/litestream/sftp"
	_ "github.com/benbjohnson/litestream/webdav"
)

const backendsBuilt = true
