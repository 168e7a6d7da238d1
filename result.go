package heartbeat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

// An Outcome says how a check ended. The zero [Result] has the zero Outcome. The Result
// that [ResultFromContext] returns while a heartbeat is under way also has it.
type Outcome int

// The outcomes of a check.
const (
	Sent    Outcome = iota + 1 // at least one target was pinged, and each that was has taken the ping
	Skipped                    // no heartbeat was tried; Result.Reason says why
	Failed                     // at least one ping failed, or ctx was done before any; Result.Err says why
)

// outcomes are the texts. The zero Outcome has one too, so that a zero Result can be read
// back from JSON.
var outcomes = []string{"Outcome(0)", Sent: "sent", Skipped: "skipped", Failed: "failed"}

// String returns "sent", "skipped" or "failed".
func (o Outcome) String() string {
	if uint(o) > uint(Failed) { // also if o is negative
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
	return outcomes[o]
}

// MarshalText returns the same text as String, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText sets o to the Outcome whose String method returns text. It returns an error
// for any other text.
func (o *Outcome) UnmarshalText(text []byte) error {
	known := slices.Index(outcomes, string(text))
	if known < 0 {
		return fmt.Errorf("heartbeat: %.20q is not an outcome; it must be sent, skipped or failed", text)
	}
	*o = Outcome(known)
	return nil
}

// A Result describes one check. In JSON, Err is the text "error", and Targets is
// "targets", with a text for each error.
type Result struct {
	Time      time.Time        `json:"time"`                // when the check began, on the monitor's clock
	Outcome   Outcome          `json:"outcome"`             // how it ended
	Reason    Reason           `json:"reason,omitempty"`    // why it was skipped (the first unhealthy database's reason); empty otherwise
	Databases int              `json:"databases"`           // how many were checked
	Unhealthy []DatabaseStatus `json:"unhealthy,omitempty"` // nil when all are healthy
	Err       error            `json:"-"`                   // why it failed, the errors of several targets joined; nil otherwise
	Targets   []TargetResult   `json:"-"`                   // one for each target that a heartbeat was tried on; nil when there was none
}

// A TargetResult describes one ping of one target.
type TargetResult struct {
	// Name is HTTPOptions.Name. If HTTPOptions.Name is empty, Name is the scheme and host of
	// the URL. For a Pinger that is no HTTPPinger, Name is what its String method returns.
	// If that text is an http or https URL, Name is only the URL's scheme and host. If the
	// text is empty or could be a URL of another form, Name is "target" and the number of
	// the Pinger, counted from 1.
	Name string
	Err  error // nil: the ping has arrived
}

type resultKey struct{}

// ResultFromContext returns the [Result] that a ping is about, and whether ctx has a
// Result. A [Monitor] gives such a ctx to Ping. The Result of a failure signal has the
// unhealthy databases. The Result of a heartbeat has no Outcome yet.
func ResultFromContext(ctx context.Context) (Result, bool) {
	r, ok := ctx.Value(resultKey{}).(Result)
	return r.clone(), ok
}

// String returns the Result in one line, for people: for example
//
//	last sync too old: /data/app.db, last sync 2026-01-01T00:00:00Z (1 of 7 databases)
//
// A control character in a path or an error is shown as a space.
func (r Result) String() string {
	databases := fmt.Sprintf("%d databases", r.Databases)
	if r.Databases == 1 {
		databases = "1 database"
	}
	text := databases + " in sync"
	switch {
	case len(r.Unhealthy) > 0:
		first, lastSync := r.Unhealthy[0], ""
		if at := first.LastSyncAt; !at.IsZero() {
			lastSync = ", last sync " + at.UTC().Format(time.RFC3339)
		}
		text = fmt.Sprintf("%s: %s%s (%d of %s)", r.Reason, first.Path, lastSync, len(r.Unhealthy), databases)
	case r.Reason != "":
		text = string(r.Reason)
	case r.Err != nil:
		text = fmt.Sprintf("heartbeat failed: %v", r.Err)
	}
	// The text becomes a part of other formats, such as the body of a ping or the status of
	// a systemd unit. A line end in a path would begin a new field there.
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
}

// clone returns r with slices of its own, because a caller may change the slices of its
// Result. The same Result goes to pingers, to OnResult and into Status.
func (r Result) clone() Result {
	r.Unhealthy, r.Targets = slices.Clone(r.Unhealthy), slices.Clone(r.Targets)
	return r
}

// skipFor makes r the Result of a check that found these databases unhealthy, or that found
// no database.
func (r *Result) skipFor(unhealthy []DatabaseStatus) {
	r.Outcome, r.Reason, r.Unhealthy = Skipped, ReasonNoDatabases, unhealthy
	if len(unhealthy) > 0 {
		r.Reason = unhealthy[0].Reason
	}
}

// sum makes r the Result of a check that found all databases healthy. deliveries are its
// pings, perhaps none, and targets is the number of all targets. If there is only one target,
// its error needs no name, and is kept as it is. So a caller may compare it, and the Error
// method of a foreign error is not called here.
func (r *Result) sum(deliveries []delivery, targets int) {
	r.Outcome = Sent
	if len(deliveries) == 0 {
		r.Outcome, r.Reason = Skipped, ReasonRateLimited
	}
	var errs []error
	for _, d := range deliveries {
		r.Targets = append(r.Targets, TargetResult{d.target.name, d.err})
		if d.err == nil {
			continue
		}
		r.Outcome, r.Err = Failed, d.err
		if targets > 1 {
			errs = append(errs, fmt.Errorf("%s: %w", d.target.name, d.err))
		}
	}
	if errs != nil {
		r.Err = errors.Join(errs...)
	}
}

// forStrangers returns r with errors that may be shown to strangers. r must be a clone,
// because the errors of its targets are replaced. These errors are joined anew. If r.Err, which
// is joined already, were passed to package redact, the names of the targets would be left out,
// because they are text like any other.
func (r Result) forStrangers() Result {
	var errs []error
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Err != nil {
			t.Err = forStrangers(t.Err)
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, t.Err))
		}
	}
	if errs == nil && r.Err != nil { // the error of a ctx that ended before any ping; it is foreign too
		errs = []error{forStrangers(r.Err)}
	}
	r.Err = errors.Join(errs...)
	return r
}

// forStrangers returns an error that strangers may see in place of err. If err is from an
// HTTPPinger, its text is kept. Otherwise only what package redact leaves of the text is kept.
//
// An error is foreign code. Package redact bounds how much of the error it looks at, and
// recovers a panic. If a method of the error ends its goroutine, the text is withheld. To show
// no text of a foreign error at all was rejected: "connection refused" is what an operator
// looks for. To show all of an error that wraps an HTTPPinger's error was rejected too: the
// words around the wrapped error may hold anything.
func forStrangers(err error) error {
	text := redact.Withheld
	apart(func() {
		text = redact.Text(err, func(err error) bool {
			_, status := err.(*StatusError)
			_, ping := err.(*pingError)
			return status || ping
		})
	})
	return errors.New(text)
}

// The JSON forms of Result and TargetResult. An error is a text in JSON, and only a text can be
// read back, because encoding/json makes no value for an interface. The fields Err and Targets
// of resultJSON hide the fields of the same names in resultFields.
type (
	resultFields Result // without its methods, or MarshalJSON would call itself
	resultJSON   struct {
		resultFields
		Err     errorJSON    `json:"error,omitzero"`
		Targets []targetJSON `json:"targets,omitempty"`
	}
	targetJSON struct {
		Name string    `json:"name"`
		Err  errorJSON `json:"error,omitzero"`
	}
	errorJSON struct{ error }
)

// MarshalText returns the error's text. Package fmt recovers a panic of the error's method,
// such as a panic because of a nil pointer.
func (e errorJSON) MarshalText() ([]byte, error) { return fmt.Append(nil, e.error), nil }

// UnmarshalText makes an error with the text.
func (e *errorJSON) UnmarshalText(text []byte) error {
	if len(text) > 0 {
		e.error = errors.New(string(text))
	}
	return nil
}

// MarshalJSON returns an object with lower-case keys. It leaves out what is empty, and
// gives errors as texts.
func (r Result) MarshalJSON() ([]byte, error) {
	form := resultJSON{resultFields: resultFields(r), Err: errorJSON{r.Err}}
	for _, t := range r.Targets {
		form.Targets = append(form.Targets, targetJSON{t.Name, errorJSON{t.Err}})
	}
	return json.Marshal(form)
}

// UnmarshalJSON reads what MarshalJSON wrote. Only the text of an error comes back.
func (r *Result) UnmarshalJSON(data []byte) error {
	var form resultJSON
	if err := json.Unmarshal(data, &form); err != nil {
		return fmt.Errorf("heartbeat: not the JSON form of a Result: %w", err)
	}
	*r = Result(form.resultFields)
	r.Err = form.Err.error
	for _, t := range form.Targets {
		r.Targets = append(r.Targets, TargetResult{t.Name, t.Err.error})
	}
	return nil
}

// LogValue makes a Result a group in a log/slog line.
func (r Result) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("outcome", r.Outcome.String()), slog.Int("databases", r.Databases)}
	if r.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(r.Reason)), slog.Int("unhealthy", len(r.Unhealthy)))
	}
	if r.Err != nil {
		attrs = append(attrs, slog.Any("error", r.Err))
	}
	return slog.GroupValue(attrs...)
}

// Status is what a [Monitor] knows now.
type Status struct {
	Healthy    bool             `json:"healthy"`               // whether there are databases and all are healthy
	Interval   time.Duration    `json:"interval"`              // between two heartbeats, MinInterval or more; in JSON in nanoseconds
	LastResult Result           `json:"last_result,omitzero"`  // of the newest check that has ended; zero: no check has ended
	LastSentAt time.Time        `json:"last_sent_at,omitzero"` // when the latest heartbeat that was sent began; zero: no heartbeat was sent
	Databases  []DatabaseStatus `json:"databases"`             // all databases: first those that were added, in that order, then those of Source
}

// ServeHTTP answers a GET or HEAD with Status as JSON: 200 when the databases are
// healthy, and 503 when they are not. Strangers may see the answer. It holds the paths
// of the databases, and no ping URL. If an error is not from an [HTTPPinger], the answer
// holds only the part of its text that is known to be harmless.
func (m *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return
	}
	status := m.Status()
	status.LastResult = status.LastResult.forStrangers()
	body, err := json.Marshal(status)
	if err != nil { // a time that JSON cannot hold
		http.Error(w, "the status cannot be shown as JSON", http.StatusInternalServerError)
		return
	}
	header.Set("Content-Type", "application/json")
	if !status.Healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n')) // net/http drops it for HEAD
}
