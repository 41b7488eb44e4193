package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"

	"github.com/seed-048de892/walpost/internal/devstack/devstacktest"
	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/outbox/schema"
)

// A program is relay run on servers of the test's own, with everything that
// has metrics.
type program struct {
	base string // URL of the operations address
	conn *pgx.Conn
	name string
	done chan error
	stop context.CancelFunc
}

func newProgram(t *testing.T, args ...string) *program {
	t.Helper()
	dsn, name := devstacktest.DatabaseOf(t, "17"), devstacktest.Name(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	migration, err := schema.FS.ReadFile("00001_outbox.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := conn.Exec(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	log := operations{address: make(chan string, 1)}
	p := &program{conn: conn, name: name, done: make(chan error, 1), stop: stop}
	go func() {
		p.done <- run(ctx, append([]string{
			"run", "--postgres", dsn, "--brokers", strings.Join(devstacktest.Kafka(t), ","), "--source", name, "--positions-topic", "_" + name + ".positions",
			"--ops-listen", "127.0.0.1:0", "--log-format", "json", "--canary-every", "200ms",
		}, args...), io.Discard, log)
	}()
	select {
	case address := <-log.address:
		p.base = "http://" + address
	case err := <-p.done:
		t.Fatalf("relay run = %v", err)
	}
	p.wait(t, "the relay to be ready", "/ready", `"ready"`)
	return p
}

func (p *program) wait(t *testing.T, what, path, want string) {
	t.Helper()
	devstacktest.Wait(t, what, time.Minute, func() bool { return strings.Contains(get(t, p.base+path), want) })
}

func (p *program) end(t *testing.T) {
	t.Helper()
	p.stop()
	if err := <-p.done; err != nil {
		t.Errorf("relay run = %v", err)
	}
}

func (p *program) write(t *testing.T, version int64, headers map[string]string) {
	t.Helper()
	err := pgx.BeginFunc(t.Context(), p.conn, func(tx pgx.Tx) error {
		return outbox.Write(t.Context(), tx, outbox.Event{
			Topic: p.name + ".created", AggregateType: "user", AggregateID: "42", AggregateVersion: version, Type: "UserCreated", Payload: []byte(`{}`), Headers: headers,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// served gives every metric that a relay can serve, and its labels: of one
// that has published, has been cut off, keeps partitions, and has a bound on
// its slot.
func served(t *testing.T) map[string][]string {
	t.Helper()
	p := newProgram(t, "--retention", "24h", "--retention-every", "1s")
	for _, sql := range []string{
		`alter system set max_slot_wal_keep_size = '10GB'`, `select pg_reload_conf()`,
		`create table outbox_old partition of outbox for values from ('2020-01-01') to ('2020-01-02')`,
		`select pg_create_logical_replication_slot('` + p.name + `_other', 'pgoutput')`,
		`select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database() and active_pid is not null`,
	} {
		if _, err := p.conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	p.write(t, 1, nil)
	for _, metric := range []string{
		"relay_records_published_total{", "relay_slot_safe_bytes ", "relay_last_error_timestamp_seconds{", `relay_slot_state{state="reserved"} 1`,
		"relay_retention_blocked_partitions{", "relay_canary_round_trip_seconds ",
	} {
		p.wait(t, metric, "/metrics", "\n"+metric)
	}
	text := get(t, p.base+"/metrics")
	p.end(t)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	metrics := make(map[string][]string)
	for name, family := range families {
		labels := make(map[string]bool)
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = true
			}
		}
		metrics[name] = slices.Sorted(maps.Keys(labels))
	}
	return metrics
}

// TestOperationsAreOfThisProgram: the documentation lists what is served, and
// the rules and the dashboard ask for nothing else.
func TestOperationsAreOfThisProgram(t *testing.T) {
	metrics := served(t)
	t.Run("documentation", func(t *testing.T) { checkDocumentation(t, metrics) })
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, metrics) })
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, metrics) })
}

func checkDocumentation(t *testing.T, metrics map[string][]string) {
	listed := make(map[string][]string)
	for line := range strings.Lines(file(t, "../../docs/operations.md")) {
		rest, found := strings.CutPrefix(line, "| `relay_")
		if !found {
			continue
		}
		name, _, _ := strings.Cut(rest, "`")
		name, labels, labelled := strings.Cut("relay_"+name, "{")
		if _, twice := listed[name]; twice {
			t.Errorf("docs/operations.md lists %s twice", name)
		}
		listed[name] = nil
		if labelled {
			listed[name] = strings.Split(strings.TrimSuffix(labels, "}"), ",")
			slices.Sort(listed[name])
		}
	}
	for name, labels := range metrics {
		if !strings.HasPrefix(name, "relay_") {
			if !slices.ContainsFunc([]string{"go_", "process_", "promhttp_"}, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
				t.Errorf("%s is served, and of a prefix that docs/operations.md does not name", name)
			}
			continue
		}
		got, ok := listed[name]
		if !ok {
			t.Errorf("%s is served, and docs/operations.md does not list it", name)
		} else if !slices.Equal(got, labels) {
			t.Errorf("%s has the labels %q, docs/operations.md says %q", name, labels, got)
		}
		delete(listed, name)
	}
	for name := range listed {
		t.Errorf("docs/operations.md lists %s, which is not served", name)
	}
}

// checkNames wants every metric and label of an expression to be served. Those
// that Prometheus adds to all are job and instance; those of histograms have a
// suffix.
func checkNames(t *testing.T, where, expression string, metrics map[string][]string) (labels []string) {
	t.Helper()
	used, grouped, err := selectors(expression)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	labels = []string{"job", "instance"}
	for _, u := range used {
		name, isBucket := strings.CutSuffix(u.metric, "_bucket")
		if _, ok := metrics[u.metric]; ok {
			name, isBucket = u.metric, false
		}
		have, ok := metrics[name]
		if !ok {
			t.Errorf("%s: %s is not served", where, u.metric)
			continue
		}
		have = append([]string{"job", "instance"}, have...)
		if isBucket {
			have = append(have, "le")
		}
		for _, l := range u.labels {
			if !slices.Contains(have, l) {
				t.Errorf("%s: %s has no label %s, it has %q", where, u.metric, l, have)
			}
		}
		labels = append(labels, have...)
	}
	for _, l := range grouped {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: none of its metrics has the label %s", where, l)
		}
	}
	if len(grouped) > 0 {
		return grouped
	}
	return labels
}

// The rules, as Prometheus reads them.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func checkAlerts(t *testing.T, metrics map[string][]string) {
	const path = "../../deploy/alerts/relay.yml"
	var rules ruleFile
	decoder := yaml.NewDecoder(strings.NewReader(file(t, path)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	names := make(map[string]bool)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" || names[rule.Alert] {
				t.Errorf("alert %q has no name of its own", rule.Alert)
			}
			names[rule.Alert] = true
			labels := checkNames(t, rule.Alert, rule.Expr, metrics)
			if rule.For != "" {
				if _, err := model.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: for: %v", rule.Alert, err)
				}
			}
			if severity := rule.Labels["severity"]; severity != "critical" && severity != "warning" {
				t.Errorf("%s: severity %q", rule.Alert, severity)
			}
			for _, name := range []string{"summary", "description"} {
				checkAnnotation(t, rule.Alert+": "+name, rule.Annotations[name], labels)
			}
		}
	}
	if len(names) < 10 {
		t.Errorf("only %d alerts", len(names))
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", "../../deploy/alerts/relay_test.yml").CombinedOutput()
		if err != nil {
			t.Errorf("promtool test rules: %v\n%s", err, out)
		}
	} else {
		t.Log("promtool is not on PATH: the rules' own tests, deploy/alerts/relay_test.yml, were not run")
	}
}

// checkAnnotation runs a template as Prometheus would, with the labels that
// the alert has.
func checkAnnotation(t *testing.T, where, text string, labels []string) {
	t.Helper()
	with := make(map[string]string)
	for _, l := range labels {
		with[l] = "value-of-" + l
	}
	plain := func(value float64) string { return fmt.Sprint(value) }
	parsed, err := template.New(where).Option("missingkey=error").Funcs(template.FuncMap{
		"humanize": plain, "humanize1024": plain, "humanizeDuration": plain, "humanizePercentage": plain,
	}).Parse(`{{$labels := .Labels}}{{$value := .Value}}` + text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var out strings.Builder
	err = parsed.Execute(&out, map[string]any{"Labels": with, "Value": 1.5})
	if err != nil {
		t.Errorf("%s: %v", where, err)
	}
	if len(out.String()) < 20 {
		t.Errorf("%s says nothing: %q", where, out.String())
	}
}

// A dashboard is what Grafana needs of one.
type dashboard struct {
	UID, Title string
	Templating struct {
		List []struct {
			Name, Type string
			Query      any
		}
	}
	Panels []struct {
		ID          int
		Type, Title string
		Datasource  struct{ UID string }
		GridPos     struct{ X, Y, W, H int }
		Targets     []struct{ RefID, Expr string }
	}
}

func checkDashboard(t *testing.T, metrics map[string][]string) {
	var d dashboard
	if err := json.Unmarshal([]byte(file(t, "../../deploy/dashboards/relay.json")), &d); err != nil {
		t.Fatal(err)
	}
	variables := []string{"$__rate_interval", "${datasource}"}
	for _, v := range d.Templating.List {
		variables = append(variables, "$"+v.Name)
		if query, ok := v.Query.(map[string]any); ok {
			text := query["query"].(string)
			inside, found := strings.CutPrefix(text, "label_values(")
			i := strings.LastIndex(inside, ",")
			if !found || i < 0 {
				t.Fatalf("variable %s: %s is not understood", v.Name, text)
			}
			label := strings.Trim(inside[i+1:], " )")
			if labels := checkNames(t, "variable "+v.Name, inside[:i], metrics); !slices.Contains(labels, label) {
				t.Errorf("variable %s: no label %s", v.Name, label)
			}
		}
	}
	used := make(map[string]bool)
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has the id of another", p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or beside the dashboard", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && (len(p.Targets) == 0 || p.Datasource.UID != "${datasource}") {
			t.Errorf("panel %q has no query or names a datasource", p.Title)
		}
		for _, target := range p.Targets {
			checkNames(t, "panel "+p.Title, target.Expr, metrics)
			tokens, _ := tokenize(target.Expr) // checkNames has reported its error
			for _, token := range tokens {
				used[token] = true
				for word := range strings.FieldsFuncSeq(token, func(c rune) bool { return strings.ContainsRune(`"'|`, c) }) {
					if strings.HasPrefix(word, "$") && !slices.Contains(variables, word) {
						t.Errorf("panel %q: no variable %s", p.Title, word)
					}
				}
			}
		}
	}
	for name := range metrics {
		if strings.HasPrefix(name, "relay_") && !used[name] && !used[name+"_bucket"] && name != "relay_info" {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

func file(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestPausedByTheOperator pauses the program and lets it go on, and has it
// export the spans of what it publishes.
func TestPausedByTheOperator(t *testing.T) {
	var exported atomic.Int64
	var trace atomic.Bool
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		exported.Add(1)
		if bytes.Contains(body, []byte("\x4b\xf9\x2f\x35\x77\xb3\x4d\xa6\xa3\xce\x92\x9d\x0e\x0e\x47\x36")) {
			trace.Store(true)
		}
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
	p := newProgram(t, "--traces")
	post := func(path string) string {
		t.Helper()
		answer, err := http.Post(p.base+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("POST %s: %d %s %v", path, answer.StatusCode, body, err)
		}
		return string(body)
	}
	if said := post("/pause"); !strings.Contains(said, `"paused"`) {
		t.Errorf("/pause says %s", said)
	}
	p.wait(t, "the program to say that it is paused", "/ready", "paused since")
	p.write(t, 1, map[string]string{outbox.HeaderTraceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	// The log of the event is behind the slot, and nothing is read of it.
	p.wait(t, "the canary to wait", "/metrics", "\nrelay_canary_age_seconds 1.")
	if text := get(t, p.base+"/metrics"); !strings.Contains(text, "\nrelay_position_sequence 0\n") || !strings.Contains(text, "\nrelay_paused 1\n") {
		t.Error("the paused program has published, or does not say that it is paused")
	}
	if said := post("/resume"); !strings.Contains(said, `"resumed"`) {
		t.Errorf("/resume says %s", said)
	}
	p.wait(t, "the event to be published", "/metrics", "\nrelay_position_sequence 1\n")
	p.wait(t, "the program to be ready", "/ready", `"ready"`)
	devstacktest.Wait(t, "the span", 20*time.Second, trace.Load)
	p.end(t)
	if exported.Load() == 0 {
		t.Error("nothing was exported")
	}
}
