package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-heartbeat/heartbeat"
)

// The picture in the repository is the one that the library makes now.
func TestPictureIsCurrent(t *testing.T) {
	committed, err := os.ReadFile("timeline.svg")
	if err != nil {
		t.Fatal(err)
	}
	committed = bytes.ReplaceAll(committed, []byte("\r\n"), []byte("\n")) // as Git may write it on Windows
	rec, err := record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if draw(rec) != string(committed) {
		t.Error("timeline.svg is not what the program draws; run: go run ./examples/timeline > examples/timeline/timeline.svg")
	}
}

// -h explains the program, and arguments are refused: neither prints the picture.
func TestParse(t *testing.T) {
	for _, row := range []struct {
		args []string
		says string // empty: nothing is wrong
	}{
		{nil, ""},
		{[]string{"-h"}, usage},
		{[]string{"timeline.svg"}, "timeline: unexpected argument \"timeline.svg\": the picture goes to standard output\n"},
		{[]string{""}, "timeline: unexpected argument \"\": the picture goes to standard output\n"},
		{[]string{"-x"}, "flag provided but not defined: -x\n" + usage},
	} {
		var out strings.Builder
		err := parse(row.args, &out)
		if out.String() != row.says || (err == nil) != (row.says == "") {
			t.Errorf("%q: error %v, printed %q, want %q", row.args, err, out.String(), row.says)
		}
	}
}

// The picture's captions are true of the recording.
func TestRecording(t *testing.T) {
	rec, err := record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := func(times []time.Time) (after []time.Duration) {
		for _, at := range times {
			after = append(after, at.Sub(start).Truncate(time.Second))
		}
		return after
	}
	at := func(minutes, seconds int) time.Duration { return time.Duration(60*minutes+seconds) * time.Second }
	byOutcome := make(map[heartbeat.Outcome][]time.Time)
	for _, r := range rec.results {
		byOutcome[r.Outcome] = append(byOutcome[r.Outcome], r.Time)
	}
	beats := []time.Duration{
		at(0, 10), at(6, 0), at(10, 0), at(15, 0), at(20, 0), at(25, 10), at(30, 0),
		at(53, 40), at(55, 0), at(60, 0),
	}
	skipped := []time.Duration{0, at(31, 35)} // when it has not synced, and at the limit
	for next := at(31, 45); next < at(35, 0); next += 10 * time.Second {
		skipped = append(skipped, next)
	}
	for next := at(35, 0); next < at(53, 40); next += 10 * time.Second { // from the next beat on
		skipped = append(skipped, next)
	}
	for _, tt := range []struct {
		what string
		got  []time.Time
		want []time.Duration
	}{
		{"checks with a heartbeat", byOutcome[heartbeat.Sent], beats},
		{"checks with one that failed", byOutcome[heartbeat.Failed], []time.Duration{at(5, 0), at(25, 0)}},
		{"checks without", byOutcome[heartbeat.Skipped], skipped},
		{"pings that arrived", rec.arrived, beats},
		{"pings without an answer", rec.lost, []time.Duration{at(5, 0)}},
		{"pings that never left", rec.refused, []time.Duration{at(25, 0)}},
		{"failure signals", rec.signals, []time.Duration{at(31, 35)}},
	} {
		if got := after(tt.got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: at %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestService(t *testing.T) {
	at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
	end := int(length / time.Minute)
	arrived := []time.Time{at(0), at(15), at(31), at(end)}
	for _, tt := range []struct {
		what    string
		signals []time.Time
		want    []span
	}{
		{"silence", nil, []span{
			{"up", at(0), at(30)},
			{"late", at(30), at(31)}, // a ping that comes within the grace raises no alarm
			{"up", at(31), at(46)},
			{"late", at(46), at(51)},
			{"alarm", at(51), at(end)},
		}},
		{"a failure signal in each outage", []time.Time{at(20), at(40)}, []span{
			{"up", at(0), at(20)},
			{"alarm", at(20), at(31)}, // at once
			{"up", at(31), at(40)},
			{"alarm", at(40), at(end)},
		}},
		{"a failure signal that comes after the alarm", []time.Time{at(55)}, []span{
			{"up", at(0), at(30)},
			{"late", at(30), at(31)},
			{"up", at(31), at(46)},
			{"late", at(46), at(51)},
			{"alarm", at(51), at(end)}, // already
		}},
	} {
		if got := service(arrived, tt.signals); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, got, tt.want)
		}
	}
}
