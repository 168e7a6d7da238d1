// Package compat_test holds the exported names of heartbeat and heartbeattest
// fast: a change that would break a program that uses them does not compile here,
// or fails a test. CHANGELOG.md says what is promised. When a version has been
// tagged, this package may change only by additions until the next major one.
package compat_test

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-heartbeat/heartbeat"
	"github.com/go-heartbeat/heartbeat/heartbeattest"
)

// What follows compiles only while each exported name has exactly this type.

// The constants are constants, not variables.
const (
	_ time.Duration = heartbeat.DefaultInterval
	_ time.Duration = heartbeat.MinInterval

	_ heartbeat.Outcome = heartbeat.Sent
	_ heartbeat.Outcome = heartbeat.Skipped
	_ heartbeat.Outcome = heartbeat.Failed

	_ heartbeat.Reason = heartbeat.ReasonNotSynced
	_ heartbeat.Reason = heartbeat.ReasonStale
	_ heartbeat.Reason = heartbeat.ReasonFuture
	_ heartbeat.Reason = heartbeat.ReasonPanicked
	_ heartbeat.Reason = heartbeat.ReasonNoDatabases
	_ heartbeat.Reason = heartbeat.ReasonRateLimited
)

var (
	_ = []error{heartbeat.ErrRunning, heartbeat.ErrDuplicatePath, heartbeat.ErrNotAccepted, heartbeat.ErrNotSent}

	_ func(heartbeat.Pinger, []heartbeat.SyncReporter, *heartbeat.Options) (*heartbeat.Monitor, error) = heartbeat.New
	_ func(string) *heartbeat.SyncTracker                                                              = heartbeat.NewSyncTracker
	_ func(string, *heartbeat.HTTPOptions) (*heartbeat.HTTPPinger, error)                              = heartbeat.NewHTTPPinger
	_ func(context.Context) (heartbeat.Result, bool)                                                   = heartbeat.ResultFromContext
	_ func(...heartbeat.Pinger) heartbeat.Pinger                                                       = heartbeat.MultiPinger

	_ func(*heartbeat.Monitor, context.Context) error                                                  = (*heartbeat.Monitor).Run
	_ func(*heartbeat.Monitor, context.Context) heartbeat.Result                                       = (*heartbeat.Monitor).Beat
	_ func(*heartbeat.Monitor, heartbeat.SyncReporter) error                                           = (*heartbeat.Monitor).Add
	_ func(*heartbeat.Monitor, string) bool                                                            = (*heartbeat.Monitor).Remove
	_ func(*heartbeat.Monitor) heartbeat.Status                                                        = (*heartbeat.Monitor).Status
	_ func(*heartbeat.Monitor, fmt.State, rune)                                                        = (*heartbeat.Monitor).Format
	_ func(*heartbeat.Monitor, http.ResponseWriter, *http.Request)                                     = (*heartbeat.Monitor).ServeHTTP
	_ func(*heartbeat.SyncTracker, time.Time)                                                          = (*heartbeat.SyncTracker).Record
	_ func(*heartbeat.SyncTracker) string                                                              = (*heartbeat.SyncTracker).Path
	_ func(*heartbeat.SyncTracker) time.Time                                                           = (*heartbeat.SyncTracker).LastSuccessfulSyncAt
	_ func(*heartbeat.HTTPPinger, context.Context) error                                               = (*heartbeat.HTTPPinger).Ping
	_ func(*heartbeat.HTTPPinger) string                                                               = (*heartbeat.HTTPPinger).String
	_ func(heartbeat.HTTPOptions, fmt.State, rune)                                                     = heartbeat.HTTPOptions.Format
	_ func(heartbeat.HTTPOptions) slog.Value                                                           = heartbeat.HTTPOptions.LogValue
	_ func(heartbeat.HTTPOptions) ([]byte, error)                                                      = heartbeat.HTTPOptions.MarshalJSON
	_ func(heartbeat.HTTPPinger, fmt.State, rune)                                                      = heartbeat.HTTPPinger.Format
	_ func(*heartbeat.StatusError) string                                                              = (*heartbeat.StatusError).Error
	_ func(heartbeat.PingerFunc, context.Context) error                                                = heartbeat.PingerFunc.Ping
	_ func(heartbeat.Outcome) string                                                                   = heartbeat.Outcome.String
	_ func(heartbeat.Outcome) ([]byte, error)                                                          = heartbeat.Outcome.MarshalText
	_ func(*heartbeat.Outcome, []byte) error                                                           = (*heartbeat.Outcome).UnmarshalText
	_ func(heartbeat.Result) ([]byte, error)                                                           = heartbeat.Result.MarshalJSON
	_ func(*heartbeat.Result, []byte) error                                                            = (*heartbeat.Result).UnmarshalJSON
	_ func(heartbeat.Result) slog.Value                                                                = heartbeat.Result.LogValue
	_ func(heartbeat.Result) string                                                                    = heartbeat.Result.String
	_ func(heartbeat.DatabaseStatus) bool                                                              = heartbeat.DatabaseStatus.Healthy
	_ func(heartbeat.Config) error                                                                     = heartbeat.Config.Validate
	_ func(*heartbeat.ConfigError) string                                                              = (*heartbeat.ConfigError).Error
	_ func(*heartbeat.ConfigError) error                                                               = (*heartbeat.ConfigError).Unwrap
	_ func(heartbeat.Config) bool                                                                      = heartbeat.Config.Enabled
	_ func(heartbeat.Config, fmt.State, rune)                                                          = heartbeat.Config.Format
	_ func(heartbeat.Config) slog.Value                                                                = heartbeat.Config.LogValue
	_ func(heartbeat.Config) ([]byte, error)                                                           = heartbeat.Config.MarshalJSON
	_ func(heartbeat.Config, []heartbeat.SyncReporter, *heartbeat.Options) (*heartbeat.Monitor, error) = heartbeat.Config.NewMonitor

	_ func(time.Time) *heartbeattest.Clock                             = heartbeattest.NewClock
	_ func(*heartbeattest.Clock) time.Time                             = (*heartbeattest.Clock).Now
	_ func(*heartbeattest.Clock, time.Duration) <-chan time.Time       = (*heartbeattest.Clock).After
	_ func(*heartbeattest.Clock, time.Duration)                        = (*heartbeattest.Clock).Advance
	_ func(*heartbeattest.Clock, context.Context, int) error           = (*heartbeattest.Clock).BlockUntil
	_ func(*heartbeattest.Clock, context.Context, time.Duration) error = (*heartbeattest.Clock).Step
	_ func(heartbeat.Clock) *heartbeattest.Pinger                      = heartbeattest.NewPinger
	_ func(*heartbeattest.Pinger, context.Context) error               = (*heartbeattest.Pinger).Ping
	_ func(*heartbeattest.Pinger) []time.Time                          = (*heartbeattest.Pinger).Times
	_ func(*heartbeattest.Pinger, error)                               = (*heartbeattest.Pinger).Fail
	_ func(*heartbeattest.Pinger) (release func())                     = (*heartbeattest.Pinger).Block
	_ func(*heartbeattest.Pinger, context.Context, int) error          = (*heartbeattest.Pinger).BlockUntil
	_ func(string) *heartbeattest.Reporter                             = heartbeattest.NewReporter
	_ func(*heartbeattest.Reporter, time.Time)                         = (*heartbeattest.Reporter).Set
	_ func(*heartbeattest.Reporter) string                             = (*heartbeattest.Reporter).Path
	_ func(*heartbeattest.Reporter) time.Time                          = (*heartbeattest.Reporter).LastSuccessfulSyncAt
)

// The interfaces have these methods and no other: each is assigned both ways.
type (
	clock interface {
		Now() time.Time
		After(d time.Duration) <-chan time.Time
	}
	pinger interface {
		Ping(ctx context.Context) error
	}
	syncReporter interface {
		Path() string
		LastSuccessfulSyncAt() time.Time
	}
)

var (
	_ heartbeat.Clock        = clock(nil)
	_ clock                  = heartbeat.Clock(nil)
	_ heartbeat.Pinger       = pinger(nil)
	_ pinger                 = heartbeat.Pinger(nil)
	_ heartbeat.SyncReporter = syncReporter(nil)
	_ syncReporter           = heartbeat.SyncReporter(nil)
)

// These types satisfy them.
var (
	_ heartbeat.SyncReporter   = (*heartbeat.SyncTracker)(nil)
	_ heartbeat.Pinger         = (*heartbeat.HTTPPinger)(nil)
	_ heartbeat.Pinger         = heartbeat.PingerFunc(nil)
	_ http.Handler             = (*heartbeat.Monitor)(nil)
	_ error                    = (*heartbeat.StatusError)(nil)
	_ error                    = (*heartbeat.ConfigError)(nil)
	_ fmt.Stringer             = (*heartbeat.HTTPPinger)(nil)
	_ fmt.Stringer             = heartbeat.Outcome(0)
	_ fmt.Stringer             = heartbeat.Result{}
	_ fmt.Formatter            = (*heartbeat.Monitor)(nil)
	_ fmt.Formatter            = heartbeat.HTTPPinger{}
	_ fmt.Formatter            = heartbeat.Config{}
	_ encoding.TextMarshaler   = heartbeat.Outcome(0)
	_ encoding.TextUnmarshaler = (*heartbeat.Outcome)(nil)
	_ json.Marshaler           = heartbeat.Result{}
	_ json.Marshaler           = heartbeat.Config{}
	_ json.Unmarshaler         = (*heartbeat.Result)(nil)
	_ slog.LogValuer           = heartbeat.Result{}
	_ slog.LogValuer           = heartbeat.Config{}

	_ heartbeat.Clock        = (*heartbeattest.Clock)(nil)
	_ heartbeat.Pinger       = (*heartbeattest.Pinger)(nil)
	_ heartbeat.SyncReporter = (*heartbeattest.Reporter)(nil)
)

// The structs have these fields, of these types.
var (
	_ = heartbeat.Options{
		Interval:   time.Duration(0),
		MaxSyncAge: time.Duration(0),
		Clock:      heartbeat.Clock(nil),
		Logger:     (*slog.Logger)(nil),
		FailPinger: heartbeat.Pinger(nil),
		OnResult:   (func(heartbeat.Result))(nil),
		Source:     (func() []heartbeat.SyncReporter)(nil),
	}
	_ = heartbeat.HTTPOptions{
		Client:    (*http.Client)(nil),
		Timeout:   time.Duration(0),
		Method:    string(""),
		Header:    http.Header(nil),
		Body:      string(""),
		RedactURL: false,
		Name:      string(""),
	}
	_ = heartbeat.StatusError{
		Code:       int(0),
		RetryAfter: time.Duration(0),
	}
	_ = heartbeat.Result{
		Time:      time.Time{},
		Outcome:   heartbeat.Outcome(int(0)),
		Reason:    heartbeat.Reason(string("")),
		Databases: int(0),
		Unhealthy: []heartbeat.DatabaseStatus(nil),
		Err:       error(nil),
		Targets:   []heartbeat.TargetResult(nil),
	}
	_ = heartbeat.TargetResult{
		Name: string(""),
		Err:  error(nil),
	}
	_ = heartbeat.DatabaseStatus{
		Path:       string(""),
		LastSyncAt: time.Time{},
		Reason:     heartbeat.Reason(""),
	}
	_ = heartbeat.Status{
		Healthy:    false,
		Interval:   time.Duration(0),
		LastResult: heartbeat.Result{},
		LastSentAt: time.Time{},
		Databases:  []heartbeat.DatabaseStatus(nil),
	}
	_ = heartbeat.Config{
		URL:        string(""),
		URLs:       []string(nil),
		Interval:   time.Duration(0),
		MaxSyncAge: time.Duration(0),
		FailURL:    string(""),
		FailBody:   string(""),
		HTTP:       (*heartbeat.HTTPOptions)(nil),
	}
	_ = heartbeat.ConfigError{
		Key: string(""),
		Err: error(nil),
	}
)
