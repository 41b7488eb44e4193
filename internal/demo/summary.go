package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/seed-048de892/walpost/outbox"
	"github.com/seed-048de892/walpost/services/user"
)

// A Summary is the result of a round.
type Summary struct {
	OK       bool     `json:"ok"`
	Missing  []string `json:"missing"` // what is not as it should be; empty when OK
	Requests Requests `json:"requests"`
	Counts   Counts   `json:"counts"`
	Latency  Latency  `json:"latency"`
	Startup  Startup  `json:"startup"`
	Servers  Servers  `json:"servers"`
	Users    []Replay `json:"users"`
}

// Counts are the events at each stage.
type Counts struct {
	RowsCommitted     int64 `json:"rowsCommitted"`     // in the outbox
	RecordsPublished  int64 `json:"recordsPublished"`  // acknowledged by Kafka, repeated ones counted again
	DocumentsArchived int64 `json:"documentsArchived"` // found in MongoDB under the ids of the rows
}

// Startup is how long it took from the start of the demo, in milliseconds. The
// first start fetches what the machine lacks.
type Startup struct {
	ServersReady  float64 `json:"serversReadyMs"`
	ProgramsReady float64 `json:"programsReadyMs"`
	FirstArchived float64 `json:"firstArchivedMs"` // the smallest archivedAt; 0 when there is none
}

// Servers are those that ran.
type Servers struct {
	Dir         string `json:"dir"` // of data and logs
	PostgresPID int    `json:"postgresPid"`
	MongoKind   string `json:"mongoKind"`
	MongoPID    int    `json:"mongoPid"` // 0 for one that was running before
}

// A Replay sets what a user's events come to beside the row.
type Replay struct {
	ID       outbox.ID       `json:"id"`
	Events   int64           `json:"events"`
	Equal    bool            `json:"equal"`
	Row      user.State      `json:"row"`
	Replayed json.RawMessage `json:"replayed"`
}

func (m *Summary) made(s *stack) {
	m.Servers = Servers{
		Dir: s.servers.dir, PostgresPID: s.servers.postgres.PID,
		MongoKind: s.servers.mongo.Kind, MongoPID: s.servers.mongo.PID,
	}
	m.Startup.ServersReady = milliseconds(s.serversReady.Sub(s.began))
}

func (m *Summary) ready(s *stack) {
	m.Startup.ProgramsReady = milliseconds(s.partsReady.Sub(s.began))
}

func (m *Summary) count(ctx context.Context, s *stack, all []*passage) error {
	rows, err := s.committedRows(ctx)
	if err != nil {
		return err
	}
	published, _, err := measured(s.relayMetrics, "relay_records_published_total")
	if err != nil {
		return err
	}
	inserting, inserts, err := measured(s.archiveMetrics, "archive_write_seconds")
	if err != nil {
		return err
	}
	m.Counts = Counts{RowsCommitted: rows, RecordsPublished: int64(published)}
	m.Latency = latency(all)
	if inserts > 0 {
		m.Latency.Insert = milliseconds(time.Duration(inserting / float64(inserts) * float64(time.Second)))
	}
	m.Counts.DocumentsArchived = int64(m.Latency.ToArchive.Count)
	m.Startup.FirstArchived = milliseconds(firstArchived(all, s.began))
	return nil
}

// firstArchived gives how long after began the first document was written, 0
// when none was.
func firstArchived(all []*passage, began time.Time) (first time.Duration) {
	for _, p := range all {
		if after := p.archived.Sub(began); !p.archived.IsZero() && (first == 0 || after < first) {
			first = after
		}
	}
	return first
}

// compare sets each user's replayed state beside the row. A difference is
// missing; an error means that it could not be seen.
func (m *Summary) compare(ctx context.Context, s *stack, c *client) error {
	states, err := user.LoadStates(ctx, s.pool, outbox.ID{}, everything)
	if err != nil {
		return err
	}
	for _, row := range states {
		status, replayed, err := c.replay(ctx, row.ID.String())
		if err != nil {
			return err
		}
		r := Replay{ID: row.ID, Row: row, Events: replayed.EventCount, Replayed: replayed.State}
		switch {
		case status == http.StatusNotFound:
			r.Replayed = json.RawMessage("null")
			m.Missing = append(m.Missing, fmt.Sprintf("replay of user/%s: no events archived", row.ID))
		case status != http.StatusOK:
			return fmt.Errorf("replay user/%s: the archive answers with status %d", row.ID, status)
		default:
			if r.Equal, err = sameJSON(row, replayed.State); err != nil {
				return fmt.Errorf("replay user/%s: %w", row.ID, err)
			}
			if !r.Equal {
				m.Missing = append(m.Missing, fmt.Sprintf("replay of user/%s: its state differs from the row", row.ID))
			}
		}
		m.Users = append(m.Users, r)
	}
	return nil
}

// sameJSON reports whether state is the JSON of row, whatever the order of
// members.
func sameJSON(row any, state json.RawMessage) (bool, error) {
	encoded, err := json.Marshal(row)
	if err != nil {
		return false, err
	}
	var a, b any
	if err := errors.Join(json.Unmarshal(encoded, &a), json.Unmarshal(state, &b)); err != nil {
		return false, err
	}
	return reflect.DeepEqual(a, b), nil
}

// WriteText writes the summary for people.
func (m *Summary) WriteText(w io.Writer) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	distribution := func(d Distribution) string {
		return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms (%d events)", d.P50, d.P99, d.Max, d.Count)
	}
	line("requests   %d accepted, %d refused", m.Requests.Accepted, m.Requests.Refused)
	line("counts     %d rows committed, %d records published, %d documents archived",
		m.Counts.RowsCommitted, m.Counts.RecordsPublished, m.Counts.DocumentsArchived)
	line("latency    commit to Kafka's acknowledgement  %s", distribution(m.Latency.ToKafka))
	line("           commit to the archive's insert     %s, which takes %.1f ms on average", distribution(m.Latency.ToArchive), m.Latency.Insert)
	line("startup    servers after %.1f s, programs after %.1f s, first event archived after %.1f s",
		m.Startup.ServersReady/1000, m.Startup.ProgramsReady/1000, m.Startup.FirstArchived/1000)
	for _, u := range m.Users {
		verdict := "equal to the row"
		if !u.Equal {
			verdict = "NOT equal to the row"
		}
		line("replayed   user/%s: %d events, %s\n           %s", u.ID, u.Events, verdict, u.Replayed)
	}
	return err
}
