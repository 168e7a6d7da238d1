package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/benbjohnson/litestream"
	"github.com/superfly/ltx"
)

// A restoreClient shows a replica to one restore. It keeps the listings, so that
// the restore follows the plan that was made before it at no further cost. It ends
// the restore with its context also where the files are on a disk. It knows which
// file was read last, which a failed restore does not say. And it keeps damaged
// files from ending the whole process: see a framing.
type restoreClient struct {
	litestream.ReplicaClient
	ctx context.Context

	mu      sync.Mutex
	listed  map[int][]*ltx.FileInfo
	framed  map[ltx.FileInfo]*framing
	reading ltx.FileInfo          // the file that was read last, or was not there
	gone    map[ltx.FileInfo]bool // files that were listed and were not there
}

func newRestoreClient(ctx context.Context, client litestream.ReplicaClient) *restoreClient {
	return &restoreClient{
		ReplicaClient: client,
		ctx:           ctx,
		listed:        map[int][]*ltx.FileInfo{},
		framed:        map[ltx.FileInfo]*framing{},
		gone:          map[ltx.FileInfo]bool{},
	}
}

// LTXFiles lists a level, once.
func (c *restoreClient) LTXFiles(ctx context.Context, level int, _ ltx.TXID, _ bool) (ltx.FileIterator, error) {
	c.mu.Lock()
	infos, ok := c.listed[level]
	c.mu.Unlock()
	if !ok {
		var err error
		if infos, err = files(ctx, c.ReplicaClient, level); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.listed[level] = infos
		c.mu.Unlock()
	}
	return ltx.NewFileInfoSliceIterator(infos), nil
}

// OpenLTXFile opens a file. If it is gone, the next listings are new ones.
func (c *restoreClient) OpenLTXFile(ctx context.Context, level int, minTXID, maxTXID ltx.TXID, offset, size int64) (io.ReadCloser, error) {
	if c.ctx.Err() != nil {
		return nil, c.ctx.Err()
	}
	file := ltx.FileInfo{Level: level, MinTXID: minTXID, MaxTXID: maxTXID}
	stream, err := c.ReplicaClient.OpenLTXFile(ctx, level, minTXID, maxTXID, offset, size)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			c.reading = file
			c.gone[file] = true
			clear(c.listed)
		}
		return nil, err
	}
	if offset == 0 {
		c.framed[file] = &framing{want: ltx.HeaderSize}
	}
	return &restoreStream{stream, c, file, c.framed[file]}, nil
}

// fileKey returns what names a file.
func fileKey(f *ltx.FileInfo) ltx.FileInfo {
	return ltx.FileInfo{Level: f.Level, MinTXID: f.MinTXID, MaxTXID: f.MaxTXID}
}

// header returns the header of a file as it was read.
func (c *restoreClient) header(f *ltx.FileInfo) (h ltx.Header, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	framing := c.framed[fileKey(f)]
	if framing == nil || framing.header == nil {
		return h, errors.New("it was not read")
	}
	return h, h.UnmarshalBinary(framing.header)
}

// A restoreStream is a file as it is read.
type restoreStream struct {
	io.ReadCloser
	client  *restoreClient
	file    ltx.FileInfo
	framing *framing
}

func (s *restoreStream) Read(p []byte) (int, error) {
	if s.client.ctx.Err() != nil {
		return 0, s.client.ctx.Err()
	}
	n, err := s.ReadCloser.Read(p)
	s.client.mu.Lock()
	defer s.client.mu.Unlock()
	s.client.reading = s.file
	if s.framing == nil {
		return n, err
	}
	if s.framing.write(p[:n]); s.framing.err != nil {
		return 0, s.framing.err
	}
	if errors.Is(err, io.EOF) && s.framing.cut() {
		return n, errCut
	}
	return n, err
}

var errCut = errors.New("the file is cut")

// A framing follows an LTX file's frames, as far as is needed to keep the package
// that decodes it from two things that a damaged file makes it do. It panics, on a
// goroutine where nobody can recover, when fewer than eight bytes follow the pages.
// And it makes room for as much as a page says that it has, which may be 4 GB.
type framing struct {
	header []byte
	buf    []byte // of the frame's head, as far as it was read
	want   int    // how long the head is; zero: it is not known how the file goes on
	skip   uint64 // bytes of the page that are still to come
	page   bool   // whether the head was a page's, and its size comes next
	ended  bool   // whether the pages have ended
	tail   uint64 // bytes after that
	err    error  // what is wrong with it
}

// endSize is the least size of what follows the pages: the end and the size of the
// index, and the trailer.
const endSize = 1 + 8 + ltx.TrailerSize

func (f *framing) write(p []byte) {
	for len(p) > 0 && f.err == nil {
		switch {
		case f.ended:
			f.tail += uint64(len(p))
			return
		case f.skip > 0:
			n := min(f.skip, uint64(len(p)))
			f.skip -= n
			p = p[n:]
		case f.want == 0:
			return
		default:
			n := min(f.want-len(f.buf), len(p))
			f.buf, p = append(f.buf, p[:n]...), p[n:]
			if len(f.buf) == f.want {
				f.err = f.head()
				f.buf = f.buf[:0]
			}
		}
	}
}

// head takes the head of a frame, and sets what comes next.
func (f *framing) head() error {
	switch {
	case f.header == nil:
		f.header = append([]byte(nil), f.buf...)
		f.want = ltx.PageHeaderSize
	case f.page:
		f.skip = uint64(binary.BigEndian.Uint32(f.buf))
		if most := 2 * uint64(binary.BigEndian.Uint32(f.header[8:])); f.skip > most {
			return fmt.Errorf("a page says that it has %d bytes", f.skip)
		}
		f.page, f.want = false, ltx.PageHeaderSize
	default:
		var head ltx.PageHeader
		if err := head.UnmarshalBinary(f.buf); err != nil {
			return err
		}
		f.ended = head.IsZero()
		f.page, f.want = true, 4
		if head.Flags&ltx.PageHeaderFlagSize == 0 {
			f.want = 0 // an old file, whose pages do not say how long they are
		}
	}
	return nil
}

// cut reports whether the file, which has been read to its end, lacks what follows
// its pages.
func (f *framing) cut() bool { return f.ended && f.tail < endSize }
