package main

// This is a small stand-in for "promtool test rules": it runs alerts_test.yml
// against alerts.yml. Expressions and texts are evaluated by Prometheus' own
// engine, parser and templates, over samples in memory. What is made here is the
// state of an alert: pending, and firing once "for" has passed. Promtool itself
// would do all of it, but to build it takes minutes, for the clouds in which it can
// find targets; where it is in PATH it is asked too, so that the two agree.

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/template"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"go.yaml.in/yaml/v3"
)

// A testFile is what "promtool test rules" reads, as far as it is used here.
type testFile struct {
	RuleFiles          []string       `yaml:"rule_files"`
	EvaluationInterval model.Duration `yaml:"evaluation_interval"`
	Tests              []testCase     `yaml:"tests"`
}

type testCase struct {
	Name        string         `yaml:"name"`
	Interval    model.Duration `yaml:"interval"`
	InputSeries []struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	} `yaml:"input_series"`
	AlertRuleTest []expectation `yaml:"alert_rule_test"`
}

// An expectation lists the alerts of one name that fire at one time.
type expectation struct {
	EvalTime  model.Duration `yaml:"eval_time"`
	Alertname string         `yaml:"alertname"`
	ExpAlerts []alert        `yaml:"exp_alerts"`
}

type alert struct {
	Labels      map[string]string `yaml:"exp_labels"`
	Annotations map[string]string `yaml:"exp_annotations"`
}

func (a alert) String() string { return fmt.Sprintf("%v %v", a.Labels, a.Annotations) } // maps print sorted

// An active alert is pending, and fires once it has been active for long enough.
type active struct {
	alert
	since time.Time
}

func TestAlertCases(t *testing.T) {
	var file testFile
	data, err := os.ReadFile("alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	rules := readRules(t, file.RuleFiles)
	untested := maps.Clone(rules)
	for _, tt := range file.Tests {
		t.Run(tt.Name, func(t *testing.T) { tt.run(t, rules, time.Duration(file.EvaluationInterval)) })
		for _, e := range tt.AlertRuleTest {
			if len(e.ExpAlerts) > 0 {
				delete(untested, e.Alertname)
			}
		}
	}
	if len(untested) > 0 {
		t.Errorf("no case in which these fire: %q", slices.Sorted(maps.Keys(untested)))
	}
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not in PATH")
	}
	if out, err := exec.Command(promtool, "test", "rules", "alerts_test.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// readRules returns the alerting rules by their name.
func readRules(t *testing.T, files []string) map[string]rulefmt.Rule {
	t.Helper()
	rules := make(map[string]rulefmt.Rule)
	for _, file := range files {
		groups, errs := rulefmt.ParseFile(file, false, model.UTF8Validation, promqlParser, slog.New(slog.DiscardHandler))
		for _, err := range errs {
			t.Error(err)
		}
		if groups == nil {
			t.FailNow()
		}
		for _, group := range groups.Groups {
			for _, rule := range group.Rules {
				rules[rule.Alert] = rule
			}
		}
	}
	return rules
}

var promqlParser = parser.NewParser(parser.Options{})

// run evaluates, at each step, each rule that the case expects something of.
func (tt testCase) run(t *testing.T, rules map[string]rulefmt.Rule, step time.Duration) {
	expected := make(map[string]map[time.Duration][]alert)
	for _, e := range tt.AlertRuleTest {
		if _, ok := rules[e.Alertname]; !ok {
			t.Fatalf("there is no alert named %q", e.Alertname)
		}
		if expected[e.Alertname] == nil {
			expected[e.Alertname] = make(map[time.Duration][]alert)
		}
		expected[e.Alertname][time.Duration(e.EvalTime)] = e.ExpAlerts
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1e6, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true, Parser: promqlParser,
	})
	data := tt.samples(t)
	for name, times := range expected {
		evaluation := &evaluation{engine: engine, data: data, rule: rules[name]}
		last := slices.Max(slices.Collect(maps.Keys(times)))
		for at := time.Duration(0); at <= last; at += step {
			firing := evaluation.step(t, time.Unix(0, 0).Add(at))
			want, ok := times[at]
			if !ok {
				continue
			}
			for i := range want { // promtool takes this label for granted
				want[i].Labels = maps.Clone(want[i].Labels)
				want[i].Labels[model.AlertNameLabel] = name
			}
			if got, want := texts(firing), texts(want); !slices.Equal(got, want) {
				t.Errorf("at %v, %s fires for\n\t%s\nwant\n\t%s", at, name, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		}
	}
}

func texts(alerts []alert) (texts []string) {
	for _, a := range alerts {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	return texts
}

// An evaluation is one rule and the alerts that are active.
type evaluation struct {
	engine *promql.Engine
	data   storage.Queryable
	rule   rulefmt.Rule
	active map[string]active // by their labels
}

// step evaluates the rule once, and returns the alerts that fire.
func (e *evaluation) step(t *testing.T, at time.Time) (firing []alert) {
	t.Helper()
	query, err := e.engine.NewInstantQuery(t.Context(), e.data, nil, e.rule.Expr, at)
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%s: %v", e.rule.Alert, err)
	}
	now := make(map[string]active)
	for _, sample := range vector {
		a := e.expand(t, sample, at)
		key := fmt.Sprint(a.Labels)
		if before, ok := e.active[key]; ok {
			now[key] = active{a, before.since}
		} else {
			now[key] = active{a, at}
		}
		if at.Sub(now[key].since) >= time.Duration(e.rule.For) {
			firing = append(firing, a)
		}
	}
	if len(now) < len(vector) {
		t.Errorf("%s: two of its alerts have the same labels", e.rule.Alert)
	}
	e.active = now
	return firing
}

// expand makes the alert that one sample stands for.
func (e *evaluation) expand(t *testing.T, sample promql.Sample, at time.Time) alert {
	t.Helper()
	data := template.AlertTemplateData(sample.Metric.Map(), nil, "", sample)
	expand := func(text string) string {
		text = "{{$labels := .Labels}}{{$value := .Value}}" + text
		expanded, err := template.NewTemplateExpander(t.Context(), text, e.rule.Alert, data, model.TimeFromUnix(at.Unix()), nil, nil, nil).Expand()
		if err != nil {
			t.Errorf("%s: %v", e.rule.Alert, err)
		}
		return expanded
	}
	a := alert{Labels: sample.Metric.Map(), Annotations: make(map[string]string)}
	delete(a.Labels, model.MetricNameLabel)
	for name, text := range e.rule.Labels {
		a.Labels[name] = expand(text)
	}
	a.Labels[model.AlertNameLabel] = e.rule.Alert
	for name, text := range e.rule.Annotations {
		a.Annotations[name] = expand(text)
	}
	return a
}

// samples returns the case's series as a storage that can be queried.
func (tt testCase) samples(t *testing.T) storage.Queryable {
	t.Helper()
	var all []storage.Series
	for _, input := range tt.InputSeries {
		lset, values, err := promqlParser.ParseSeriesDesc(input.Series + " " + input.Values)
		if err != nil {
			t.Fatalf("%s: %v", input.Series, err)
		}
		var samples []chunks.Sample
		for i, value := range values {
			if !value.Omitted {
				at := time.Duration(i) * time.Duration(tt.Interval)
				samples = append(samples, sample{at.Milliseconds(), value.Value})
			}
		}
		all = append(all, storage.NewListSeries(lset, samples))
	}
	slices.SortFunc(all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			matched := slices.DeleteFunc(slices.Clone(all), func(s storage.Series) bool {
				return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) })
			})
			return &seriesSet{series: matched, next: -1}
		},
	}}
}

// A seriesSet is a storage.SeriesSet of a list.
type seriesSet struct {
	series []storage.Series
	next   int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.next] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// A sample is a chunks.Sample of a number.
type sample struct {
	t int64 // in milliseconds
	f float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
