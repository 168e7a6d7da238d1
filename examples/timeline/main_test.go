package main

import (
	"bytes"
	"os"
	"slices"
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

// The picture's captions are true of the recording.
func TestRecording(t *testing.T) {
	rec, err := record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	minutes := func(times []time.Time) (after []int) {
		for _, at := range times {
			after = append(after, int(at.Sub(start)/time.Minute))
		}
		return after
	}
	byOutcome := make(map[heartbeat.Outcome][]time.Time)
	for _, r := range rec.results {
		byOutcome[r.Outcome] = append(byOutcome[r.Outcome], r.Time)
	}
	for _, tt := range []struct {
		what string
		got  []time.Time
		want []int
	}{
		{"checks with a heartbeat", byOutcome[heartbeat.Sent], []int{0, 5, 10, 16, 20, 25, 30, 43, 45, 50, 55}},
		{"checks with a lost one", byOutcome[heartbeat.Failed], []int{15}},
		{"checks without", byOutcome[heartbeat.Skipped], []int{35, 36, 37, 38, 39, 40, 41, 42}},
		{"pings that arrived", rec.arrived, []int{0, 5, 10, 16, 20, 25, 30, 43, 45, 50, 55}},
		{"pings that were lost", rec.lost, []int{15}},
		{"failure signals", rec.signals, []int{35}},
	} {
		if got := minutes(tt.got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: at minutes %v, want %v", tt.what, got, tt.want)
		}
	}
}

func TestService(t *testing.T) {
	at := func(minute int) time.Time { return start.Add(time.Duration(minute) * time.Minute) }
	end := int(length / time.Minute)
	arrived := []time.Time{at(0), at(5), at(11), at(30), at(end)}
	for _, tt := range []struct {
		what    string
		signals []time.Time
		want    []span
	}{
		{"silence", nil, []span{
			{"up", at(0), at(10)},
			{"late", at(10), at(11)}, // a ping that comes within the grace raises no alarm
			{"up", at(11), at(16)},
			{"late", at(16), at(19)},
			{"alarm", at(19), at(30)},
			{"up", at(30), at(35)},
			{"late", at(35), at(38)},
			{"alarm", at(38), at(end)},
		}},
		{"a failure signal in each outage", []time.Time{at(15), at(45)}, []span{
			{"up", at(0), at(10)},
			{"late", at(10), at(11)},
			{"up", at(11), at(15)},
			{"alarm", at(15), at(30)}, // at once
			{"up", at(30), at(35)},
			{"late", at(35), at(38)},
			{"alarm", at(38), at(end)}, // already
		}},
	} {
		if got := service(arrived, tt.signals); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, got, tt.want)
		}
	}
}
