package heartbeat_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/go-heartbeat/heartbeat"
)

// P2, P7: on a caller's kept connection net/http itself would repeat a GET that broke
// there before the answer, though the server has read it and may have acted on it.
func TestP7_KeptConnectionBreaks(t *testing.T) {
	t.Parallel()
	for range 20 { // what net/http does depends on who is first
		var second atomic.Bool
		base, requests := rawServer(t, func(conn net.Conn, in *bufio.Reader, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
			if !second.Swap(true) {
				_, _ = http.ReadRequest(in) // and no answer
			}
		})
		client := &http.Client{Transport: &http.Transport{}}
		p := newPinger(t, base+"/"+uuid, &heartbeat.HTTPOptions{Client: client})
		require.NoError(t, p.Ping(t.Context()))
		err := p.Ping(t.Context())
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.EqualError(t, err, fmt.Sprintf("heartbeat: ping: Get %q: connection lost before the answer: unexpected EOF", base))
		require.NotErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, heartbeat.ErrNotSent)
		require.Equal(t, int32(1), requests.Load(), "the lost one, which the handler read, is not repeated")
		client.CloseIdleConnections()
	}
}

// frame is an HTTP/2 frame.
func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	b := []byte{0, 0, byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// P2, P7: what an HTTP/2 server has refused, net/http would repeat.
func TestP7_RefusedByHTTP2(t *testing.T) {
	t.Parallel()
	const headers, resetStream, settings, goAway = 1, 3, 4, 7
	const endHeaders = 4
	earlyHints := frame(headers, endHeaders, 1, 0x08, 3, '1', '0', '3') // :status 103
	for name, refusal := range map[string][]byte{
		"REFUSED_STREAM":              frame(resetStream, 0, 1, 0, 0, 0, 7),
		"GOAWAY":                      frame(goAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"103 and then PROTOCOL_ERROR": append(earlyHints, frame(resetStream, 0, 1, 0, 0, 0, 1)...),
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
			t.Run(name+"/"+method, func(t *testing.T) {
				t.Parallel()
				cert, pool := newCertificate(t, "localhost", time.Now().AddDate(0, 1, 0))
				listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
				require.NoError(t, err)
				var accepting, serving sync.WaitGroup
				var conns []net.Conn
				var requests atomic.Int32
				accepting.Go(func() {
					for {
						conn, err := listener.Accept()
						if err != nil {
							return
						}
						conns = append(conns, conn)
						serving.Go(func() {
							in := bufio.NewReader(conn)
							_, _ = io.CopyN(io.Discard, in, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
							_, _ = conn.Write(frame(settings, 0, 0))
							for {
								head := make([]byte, 9)
								if _, err := io.ReadFull(in, head); err != nil {
									return
								}
								_, _ = io.CopyN(io.Discard, in, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
								if head[3] == headers {
									requests.Add(1)
									_, _ = conn.Write(refusal)
								}
							}
						})
					}
				})
				_, port, _ := net.SplitHostPort(listener.Addr().String())
				transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
				err = newPinger(t, "https://localhost:"+port+"/"+uuid, &heartbeat.HTTPOptions{Client: &http.Client{Transport: transport}, Method: method}).Ping(t.Context())
				require.Error(t, err)
				require.NotErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, heartbeat.ErrNotSent)
				require.Equal(t, int32(1), requests.Load())
				transport.CloseIdleConnections()
				listener.Close()
				accepting.Wait()
				for _, conn := range conns {
					conn.Close()
				}
				serving.Wait()
			})
		}
	}
}
