package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/superfly/ltx"
)

// verify decodes a file as a restore does, with or without the guard, and makes an
// error of a panic.
func verify(data []byte, guard bool) (err error, panicked bool) {
	defer func() {
		if r := recover(); r != nil {
			err, panicked = fmt.Errorf("panic: %v", r), true
		}
	}()
	var stream io.Reader = bytes.NewReader(data)
	if guard {
		client := newRestoreClient(context.Background(), nil)
		stream = &restoreStream{io.NopCloser(stream), client, ltx.FileInfo{}, &framing{want: ltx.HeaderSize}}
	}
	return ltx.NewDecoder(stream).Verify(), false
}

// decode returns the database that a file holds.
func decode(t *testing.T, data []byte) []byte {
	t.Helper()
	var database bytes.Buffer
	require.NoError(t, ltx.NewDecoder(bytes.NewReader(data)).DecodeDatabaseTo(&database))
	return database.Bytes()
}

// Each cut of a file is an error, and so is each changed byte from which another
// database would come. None is a panic, which would end the process: Litestream
// decodes on a goroutine of its own.
func TestRestoreClient_damage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	data, err := os.ReadFile(ltxFiles(t, b.replicaDir())[0])
	require.NoError(t, err)
	err, _ = verify(data, true)
	require.NoError(t, err)

	panics := 0
	for size := range data {
		if size > 300 && size < len(data)-300 && size%37 > 0 {
			continue // where a page is cut, some will do
		}
		err, panicked := verify(data[:size], true)
		require.Error(t, err, "cut to %d of %d bytes", size, len(data))
		require.False(t, panicked, "cut to %d of %d bytes: %v", size, len(data), err)
		if _, panicked := verify(data[:size], false); panicked {
			panics++
		}
	}
	assert.NotZero(t, panics, "the package has mended it: then this guard is not needed any more")
	for at := range data {
		if at > 150 && at < len(data)-150 && at%41 > 0 {
			continue // of the pages' content, some will do
		}
		for _, mask := range []byte{1, 0x80, 0xff} {
			changed := slices.Clone(data)
			changed[at] ^= mask
			err, panicked := verify(changed, true)
			require.False(t, panicked, "byte %d of %d changed: %v", at, len(data), err)
			if err == nil { // the checksum is of the pages as they were before they were compressed
				require.Equal(t, decode(t, data), decode(t, changed), "byte %d of %d changed", at, len(data))
			}
		}
	}
}

// A page's size is believed only if a page can have it.
func TestRestoreClient_hugePage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	data, err := os.ReadFile(ltxFiles(t, b.replicaDir())[0])
	require.NoError(t, err)
	data[ltx.HeaderSize+ltx.PageHeaderSize] = 0xf0
	err, _ = verify(data, true)
	require.ErrorContains(t, err, "a page says that it has 40265")
}

// A copy is read as its framing sees it, also where the connection broke.
func TestRestoreClient_resumes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	path := ltxFiles(t, b.replicaDir())[0]
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	minTXID, maxTXID, err := ltx.ParseFilename(filepath.Base(path))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	client := newRestoreClient(ctx, b.db.Replica.Client)
	var got []byte
	for len(got) < len(data) {
		stream, err := client.OpenLTXFile(ctx, 0, minTXID, maxTXID, int64(len(got)), 0)
		require.NoError(t, err)
		part := make([]byte, 100)
		n, err := stream.Read(part)
		require.NoError(t, err)
		require.NoError(t, stream.Close())
		got = append(got, part[:n]...)
	}
	assert.Equal(t, data, got)
	header, err := client.header(&ltx.FileInfo{MinTXID: minTXID, MaxTXID: maxTXID, Size: 1})
	require.NoError(t, err)
	assert.Equal(t, maxTXID, header.MaxTXID)
	framing := client.framed[ltx.FileInfo{MinTXID: minTXID, MaxTXID: maxTXID}]
	assert.True(t, framing.ended)
	assert.False(t, framing.cut())

	_, err = client.header(&ltx.FileInfo{MinTXID: 7, MaxTXID: 7})
	require.EqualError(t, err, "it was not read")

	// A file on a disk does not heed a context: this does.
	stream, err := client.OpenLTXFile(ctx, 0, minTXID, maxTXID, 0, 0)
	require.NoError(t, err)
	defer stream.Close()
	cancel()
	_, err = stream.Read(make([]byte, 1))
	require.ErrorIs(t, err, context.Canceled)
	_, err = client.OpenLTXFile(ctx, 0, minTXID, maxTXID, 0, 0)
	require.ErrorIs(t, err, context.Canceled)
}
