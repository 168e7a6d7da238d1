package heartbeat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-heartbeat/heartbeat/internal/redact"
)

// An Outcome says how a check ended. The zero [Result] has the zero Outcome, and so
// has the Result that [ResultFromContext] returns while a heartbeat is under way.
type Outcome int

// The outcomes of a check.
const (
	Sent    Outcome = iota + 1 // each target that was due has taken the ping
	Skipped                    // nothing was pinged; Result.Reason says why
	Failed                     // at least one ping failed; Result.Err says why
)

var outcomes = [...]string{Sent: "sent", Skipped: "skipped", Failed: "failed"}

// String returns "sent", "skipped" or "failed".
func (o Outcome) String() string {
	if o >= Sent && o <= Failed {
		return outcomes[o]
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// MarshalText returns the same text as String, for JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText sets o to the Outcome that String gives that text for. It returns
// an error for any other text.
func (o *Outcome) UnmarshalText(text []byte) error {
	for known := range Failed + 1 {
		if known.String() == string(text) {
			*o = known
			return nil
		}
	}
	return fmt.Errorf("heartbeat: %.20q is not an outcome; it must be sent, skipped or failed", text)
}

// A Result describes one check.
type Result struct {
	Time      time.Time        // when the check began, on the monitor's clock
	Outcome   Outcome          // how it ended
	Reason    Reason           // why it was skipped (the first unhealthy database's reason); empty otherwise
	Databases int              // how many were checked
	Unhealthy []DatabaseStatus // nil when all are healthy
	Err       error            // why it failed, the errors of several targets joined; nil otherwise
	Targets   []TargetResult   // one for each target that was pinged; nil when none was
}

// A TargetResult describes one ping of one target.
type TargetResult struct {
	// Name is HTTPOptions.Name. If that is empty, Name is the scheme and host of the
	// URL. For a Pinger that is no HTTPPinger, Name is what its String method returns (of
	// an http or https URL, the scheme and host), or "target" and its position.
	Name string
	Err  error // nil: it has arrived
}

type resultKey struct{}

// ResultFromContext returns the [Result] that a ping is about, and whether there is
// one. ctx is the one that a [Monitor] gives to Ping. The Result of a failure signal
// has the unhealthy databases. The Result of a heartbeat has no Outcome yet.
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
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, r.text())
}

func (r Result) text() string {
	switch {
	case len(r.Unhealthy) > 0:
		text := fmt.Sprintf("%s: %s", r.Reason, r.Unhealthy[0].Path)
		if at := r.Unhealthy[0].LastSyncAt; !at.IsZero() {
			text += ", last sync " + at.UTC().Format(time.RFC3339)
		}
		return fmt.Sprintf("%s (%d of %s)", text, len(r.Unhealthy), r.databases())
	case r.Reason != "":
		return string(r.Reason)
	case r.Err != nil:
		return fmt.Sprintf("heartbeat failed: %v", r.Err)
	}
	return r.databases() + " in sync"
}

func (r Result) databases() string {
	if r.Databases == 1 {
		return "1 database"
	}
	return strconv.Itoa(r.Databases) + " databases"
}

// clone returns r with slices of its own: a caller may change those of its Result.
func (r Result) clone() Result {
	r.Unhealthy, r.Targets = slices.Clone(r.Unhealthy), slices.Clone(r.Targets)
	return r
}

// skipFor makes r the Result of a check that found these databases unhealthy, or none.
func (r *Result) skipFor(unhealthy []DatabaseStatus) {
	r.Outcome, r.Reason, r.Unhealthy = Skipped, ReasonNoDatabases, unhealthy
	if len(unhealthy) > 0 {
		r.Reason = unhealthy[0].Reason
	}
}

// sum makes r the Result of a check that pinged some of so many targets.
func (r *Result) sum(deliveries []delivery, targets int) {
	r.Outcome = Sent
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
// because those of its targets are replaced. They are joined anew: in an error that is
// joined already, the name of a target is a text like any other, which package redact
// would leave out.
func (r Result) forStrangers() Result {
	var errs []error
	for i := range r.Targets {
		if t := &r.Targets[i]; t.Err != nil {
			t.Err = forStrangers(t.Err)
			errs = append(errs, fmt.Errorf("%s: %w", t.Name, t.Err))
		}
	}
	if errs == nil && r.Err != nil { // that of a ctx, which is foreign too: it ended before any ping
		errs = []error{forStrangers(r.Err)}
	}
	r.Err = errors.Join(errs...)
	return r
}

// forStrangers returns a pinger's error as strangers may see it: the text of an
// HTTPPinger's as it is, and of any other what package redact leaves of it. An error is
// foreign code. Package redact bounds it and survives its panic. If it ends the goroutine
// that asks it, its text is withheld. To show no text of a foreign error at all was
// rejected: "connection refused" is what an operator looks for.
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

// The JSON forms of Result and TargetResult. Errors are texts.
type (
	resultJSON struct {
		Time      time.Time        `json:"time"`
		Outcome   Outcome          `json:"outcome"`
		Reason    Reason           `json:"reason,omitempty"`
		Databases int              `json:"databases"`
		Unhealthy []DatabaseStatus `json:"unhealthy,omitempty"`
		Err       string           `json:"error,omitempty"`
		Targets   []targetJSON     `json:"targets,omitempty"`
	}
	targetJSON struct {
		Name string `json:"name"`
		Err  string `json:"error,omitempty"`
	}
)

// MarshalJSON returns an object with lower-case keys. It leaves out what is empty, and
// gives errors as texts.
func (r Result) MarshalJSON() ([]byte, error) {
	var targets []targetJSON
	for _, t := range r.Targets {
		targets = append(targets, targetJSON{t.Name, textOf(t.Err)})
	}
	return json.Marshal(resultJSON{r.Time, r.Outcome, r.Reason, r.Databases, r.Unhealthy, textOf(r.Err), targets})
}

// UnmarshalJSON reads what MarshalJSON wrote. Of an error, only the text comes back.
func (r *Result) UnmarshalJSON(data []byte) error {
	var form resultJSON
	if err := json.Unmarshal(data, &form); err != nil {
		return fmt.Errorf("heartbeat: not the JSON form of a Result: %w", err)
	}
	*r = Result{form.Time, form.Outcome, form.Reason, form.Databases, form.Unhealthy, errorOf(form.Err), nil}
	for _, t := range form.Targets {
		r.Targets = append(r.Targets, TargetResult{t.Name, errorOf(t.Err)})
	}
	return nil
}

// textOf is err's text, or "" if err is nil. Package fmt survives a method that
// panics, such as that of a nil pointer.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprint(err)
}

func errorOf(text string) error {
	if text == "" {
		return nil
	}
	return errors.New(text)
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
	Interval   time.Duration    `json:"interval"`              // between two heartbeats: the one that counts, in JSON in nanoseconds
	LastResult Result           `json:"last_result,omitzero"`  // of the newest check that has ended; zero: none has
	LastSentAt time.Time        `json:"last_sent_at,omitzero"` // when the latest ping that succeeded began; zero: none has
	Databases  []DatabaseStatus `json:"databases"`             // all of them: those that were added, in that order, then those of Source
}

// ServeHTTP answers a GET or HEAD with Status as JSON: 200 when the databases are
// healthy, and 503 when they are not. Strangers may see the answer. It holds no ping
// URL. Of an error that is not from an [HTTPPinger], it holds only what is known to be
// harmless. It holds the paths of the databases.
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
