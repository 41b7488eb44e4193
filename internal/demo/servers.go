package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/internal/devstack"
	"github.com/seed-048de892/walpost/migrations"
)

// stopLimit is how long servers have to stop before they are killed.
const stopLimit = 10 * time.Second

// servers are those that the programs need.
type servers struct {
	dir      string
	progress io.Writer

	postgres *devstack.Postgres
	kafka    *devstack.Kfake
	mongo    *devstack.Mongo
	dsn      string // of the user service's database, which is migrated
}

// start starts all servers side by side. After an error some may run: call
// stop in any case.
func (s *servers) start(ctx context.Context) (err error) {
	if s.kafka, err = devstack.StartKfake(devstack.KfakeOptions{}); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.startPostgres(ctx) })
	group.Go(func() (err error) {
		s.mongo, err = devstack.StartMongo(ctx, devstack.MongoOptions{Dir: filepath.Join(s.dir, "mongo"), Progress: s.progress})
		return err
	})
	return group.Wait()
}

func (s *servers) startPostgres(ctx context.Context) (err error) {
	s.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresOptions{
		Dir: filepath.Join(s.dir, "postgres"), Progress: s.progress,
		// Tells when each row was committed: what latency is counted from.
		Settings: map[string]string{"track_commit_timestamp": "on"},
	})
	if err != nil {
		return err
	}
	if s.dsn, err = s.postgres.CreateDatabase(ctx, "userdb"); err != nil {
		return err
	}
	log, closeLog, err := openLog(s.dir, "migrate")
	if err != nil {
		return err
	}
	return errors.Join(migrations.Up(ctx, s.dsn, migrations.User(), log), closeLog())
}

// watch returns when ctx ends, or with an error when a server ends before.
func (s *servers) watch(ctx context.Context) error {
	select {
	case <-s.postgres.Done():
		return errors.New("PostgreSQL has ended by itself")
	case <-s.mongo.Done():
		return errors.New("MongoDB has ended by itself")
	case <-ctx.Done():
		return nil
	}
}

// stop stops what was started, also when ctx has ended. Stop what is connected
// before.
func (s *servers) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	var postgres, mongo error
	var wg sync.WaitGroup
	if s.postgres != nil {
		wg.Go(func() { postgres = s.postgres.Stop(ctx) })
	}
	if s.mongo != nil {
		wg.Go(func() { mongo = s.mongo.Stop(ctx) })
	}
	if s.kafka != nil {
		s.kafka.Stop()
	}
	wg.Wait()
	return errors.Join(postgres, mongo)
}

// openLog gives a logger to the file dir/log/name.log.
func openLog(dir, name string) (log *slog.Logger, closeLog func() error, err error) {
	dir = filepath.Join(dir, "log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("make the folder of logs: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("open the log of %s: %w", name, err)
	}
	return slog.New(slog.NewTextHandler(file, nil)), file.Close, nil
}
