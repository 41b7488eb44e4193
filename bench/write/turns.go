package write

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// A contender is one line of a table that several clients are measured with.
type contender struct {
	name   string
	way    *way // whose events are counted; nil where none are written
	events int  // in one transaction
	run    func(ctx context.Context, pool *pgxpool.Pool, c *client) error
}

// A client is one of those that write at once.
type client struct {
	id   int
	done int // transactions
}

// account is another one for each of a client's transactions, and is not
// another client's at the same time, as a rule.
func (c *client) account() int64 {
	return int64((c.id*2503+c.done*17)%accounts) + 1
}

// A turn is what one contender did in one round. CPU is in seconds for each
// transaction; NaN where it can't be known.
type turn struct {
	perSecond, goCPU, serverCPU float64 // of transactions
	walBytes                    float64 // for each transaction
}

// A course says how contenders take turns.
type course struct {
	title   string
	pool    *pgxpool.Pool
	clients int
	length  time.Duration // of a turn
}

// rounds lets the contenders take turns and gives the turns of each. The first
// round warms them up: its turns are left out.
func (db *database) rounds(ctx context.Context, c course, list []contender) ([][]turn, error) {
	for _, w := range db.ways {
		if err := db.empty(ctx, &w); err != nil {
			return nil, err
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	turns := make([][]turn, len(list))
	for round := range db.Rounds + 1 {
		fmt.Fprintf(db.Progress, "%s: round %d of %d\n", c.title, round, db.Rounds)
		if err := db.checkpoint(ctx); err != nil {
			return nil, err
		}
		for _, i := range random.Perm(len(list)) { // nobody is always first, or behind the same one
			t, err := db.turn(ctx, c, &list[i])
			if err != nil {
				return nil, err
			}
			if round > 0 {
				turns[i] = append(turns[i], t)
			}
		}
	}
	return turns, nil
}

// turn lets all clients run c until the turn is over.
func (db *database) turn(ctx context.Context, by course, c *contender) (turn, error) {
	began, err := db.walPosition(ctx)
	if err != nil {
		return turn{}, err
	}
	before, err := db.usage(ctx, by.pool)
	if err != nil {
		return turn{}, err
	}
	var done atomic.Int64
	errs := make([]error, by.clients)
	start := time.Now()
	var wg sync.WaitGroup
	for id := range by.clients {
		wg.Go(func() {
			me := client{id: id}
			for errs[id] == nil && (me.done == 0 || time.Since(start) < by.length) {
				errs[id] = c.run(ctx, by.pool, &me)
				me.done++
			}
			done.Add(int64(me.done))
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	for _, err := range errs {
		if err != nil {
			return turn{}, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	after, err := db.usage(ctx, by.pool)
	if err != nil {
		return turn{}, err
	}
	n := float64(done.Load())
	t := turn{
		perSecond: n / elapsed,
		goCPU:     (after.process - before.process).Seconds() / n,
		serverCPU: (after.server - before.server).Seconds() / n,
	}
	if !db.ServerCPU {
		t.serverCPU = math.NaN()
	}
	walBytes, err := db.verify(ctx, c.wayOrNone(), int(done.Load())*c.events, began)
	t.walBytes = float64(walBytes) / n
	if err != nil || c.way == nil {
		return t, err
	}
	return t, db.empty(ctx, c.way)
}

// wayOrNone is for contenders that write no events, which is verified too.
func (c *contender) wayOrNone() *way {
	if c.way != nil {
		return c.way
	}
	return &way{name: c.name, table: "outbox", count: countOutbox}
}

// medians gives the median of a figure for each contender.
func medians(turns [][]turn, figure func(turn) float64) []float64 {
	list := make([]float64, len(turns))
	for i, of := range turns {
		values := make([]float64, len(of))
		for j, t := range of {
			values[j] = figure(t)
		}
		list[i] = median(values)
	}
	return list
}

// ratios gives, for each contender, the median and the quartiles of its ratios
// to the contender base in the same round.
func ratios(turns [][]turn, base int, figure func(turn) float64) [][3]float64 {
	list := make([][3]float64, len(turns))
	for i, of := range turns {
		values := make([]float64, len(of))
		for j, t := range of {
			values[j] = figure(t) / figure(turns[base][j])
		}
		slices.Sort(values)
		last := len(values) - 1
		list[i] = [3]float64{median(values), values[last/4], values[last-last/4]}
	}
	return list
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}

// table writes a Markdown table whose first columns, names of them, are text.
func table(b *strings.Builder, names int, head []string, lines [][]string) {
	fmt.Fprintf(b, "| %s |\n|%s%s\n", strings.Join(head, " | "), strings.Repeat("---|", names), strings.Repeat("---:|", len(head)-names))
	for _, line := range lines {
		fmt.Fprintf(b, "| %s |\n", strings.Join(line, " | "))
	}
	b.WriteByte('\n')
}

// count writes a large number with commas.
func count(x float64) string {
	s := fmt.Sprintf("%.0f", x)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// micros writes seconds as microseconds, and a dash for what is not known.
func micros(seconds float64) string {
	if math.IsNaN(seconds) {
		return "–"
	}
	return fmt.Sprintf("%.1f", seconds*1e6)
}

func ratio(x float64) string {
	if math.IsNaN(x) {
		return "–"
	}
	return fmt.Sprintf("%.2f", x)
}

func spread(x [3]float64) string { return fmt.Sprintf("%.2f (%.2f–%.2f)", x[0], x[1], x[2]) }

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
