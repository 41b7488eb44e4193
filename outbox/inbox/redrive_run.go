package inbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// redrivePoll is how often due letters are looked for where no notice
	// comes: the connection that listens is broken, or a pooler in transaction
	// mode swallows notices.
	redrivePoll = 5 * time.Second

	// redriveKeys is how many keys are redriven at once. The rest of the pool
	// belongs to the events that come from Kafka.
	redriveKeys = 4
)

// redrive handles the letters of the group that are due, each of redriveKeys
// goroutines a key. All processes of the group do; which letter is whose is
// decided by leases in inbox_dead, so it does not matter which partitions a
// process has. It returns after ctx has ended and the last handler is done,
// and has no error that must end the process: what fails is logged and tried
// again.
func (in *Inbox) redrive(ctx context.Context) error {
	handling, cancel := in.graceful(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wake := make(chan struct{}, 1)
	wg.Go(func() { in.listen(ctx, wake) })
	free := make(chan struct{}, redriveKeys)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-timer.C:
		}
		wait, err := in.redriveDue(ctx, handling, free, func(l Letter) {
			wg.Go(func() {
				released := in.redriveKey(ctx, handling, l)
				<-free
				if released { // it is due again soon
					signal(wake)
				}
			})
		})
		if err != nil && ctx.Err() == nil {
			in.cfg.Log.WarnContext(ctx, "can't look for dead letters to redrive", slog.String("group", in.cfg.Group), slog.Any("error", err))
		}
		timer.Reset(wait)
	}
}

// redriveDue takes letters that are due while there are any, waits for a place
// in free for each and has it begun. It says when to look again.
func (in *Inbox) redriveDue(ctx, handling context.Context, free chan struct{}, begin func(Letter)) (time.Duration, error) {
	for {
		select {
		case <-ctx.Done():
			return redrivePoll, nil
		case free <- struct{}{}:
		}
		// Without ctx: PostgreSQL may lease a letter to a query that has been
		// cut off, and nobody would know until the lease ends.
		l, err := in.take(handling)
		if err == nil {
			begin(l)
			continue
		}
		<-free
		switch {
		case errors.Is(err, ErrNoLetter): // dropped just now
		case errors.Is(err, pgx.ErrNoRows):
			return in.untilDue(ctx)
		default:
			return redrivePoll, err
		}
	}
}

// lease is for how long a letter that a redriver works on is no one else's.
// Each attempt renews it, so that it ends by itself only when the process died
// or lost PostgreSQL.
func (in *Inbox) lease() time.Duration {
	const attempts, spare = 10 * time.Minute, 5 * time.Second
	if in.cfg.Timeout < 0 {
		return attempts + in.cfg.MaxBackoff
	}
	return in.cfg.Timeout + in.cfg.MaxBackoff + spare
}

// take gives the letter that is due for the longest time, leased, or
// pgx.ErrNoRows. Of two that take at once none gets the other's. Only the
// first of a key is ever due.
func (in *Inbox) take(ctx context.Context) (l Letter, err error) {
	var id int64
	err = in.cfg.Pool.QueryRow(ctx, "update inbox_dead set starts = starts + 1, redrive_at = clock_timestamp() + $2::interval"+
		" where id = (select id from inbox_dead where consumer_group = $1 and redrive_at <= now() order by redrive_at limit 1 for update skip locked)"+
		" returning id", in.cfg.Group, in.lease()).Scan(&id)
	if err != nil {
		return Letter{}, err
	}
	return get(ctx, in.cfg.Pool, id)
}

// untilDue gives the time until a letter becomes due, redrivePoll at most.
func (in *Inbox) untilDue(ctx context.Context) (time.Duration, error) {
	var seconds *float64
	err := in.cfg.Pool.QueryRow(ctx, "select extract(epoch from min(redrive_at) - now())::float8 from inbox_dead"+
		" where consumer_group = $1 and redrive_at is not null", in.cfg.Group).Scan(&seconds)
	if err != nil || seconds == nil || *seconds > redrivePoll.Seconds() {
		return redrivePoll, err
	}
	return max(time.Millisecond, time.Duration(*seconds*float64(time.Second))), nil
}

// listen passes PostgreSQL's notices on until ctx ends. Its connection is its
// own: one of the pool would be missing to the handlers.
func (in *Inbox) listen(ctx context.Context, wake chan<- struct{}) {
	retry := time.NewTicker(redrivePoll)
	defer retry.Stop()
	for {
		err := in.listenOnce(ctx, wake)
		if ctx.Err() != nil {
			return
		}
		in.cfg.Log.DebugContext(ctx, "no notices of redrives; looking for them instead", slog.String("group", in.cfg.Group),
			slog.Duration("every", redrivePoll), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return
		case <-retry.C:
		}
	}
}

func (in *Inbox) listenOnce(ctx context.Context, wake chan<- struct{}) error {
	config := in.cfg.Pool.Config()
	if config.BeforeConnect != nil { // it may set a password that expires
		if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
			return err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		return err
	}
	for {
		notice, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if notice.Payload != in.cfg.Group && notice.Payload != "" {
			continue
		}
		signal(wake)
	}
}

func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default: // one is there that has not been seen yet
	}
}
