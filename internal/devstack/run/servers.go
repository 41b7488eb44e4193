package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-048de892/walpost/internal/devstack"
)

// stopLimit is how long the servers have to stop before they are killed.
const stopLimit = 15 * time.Second

// servers are those that the command finds in its environment.
type servers struct {
	progress    io.Writer
	environment []string // after start

	mu     sync.Mutex
	stops  []func(context.Context) error
	remove func() error
}

// start starts all servers at once in a temporary folder. After an error some
// may run: call stop in any case.
func (s *servers) start(ctx context.Context) error {
	dir, remove, err := devstack.TempDir()
	if err != nil {
		return err
	}
	s.remove = remove
	progress := devstack.NewLines(s.progress)
	g, ctx := errgroup.WithContext(ctx)
	s.unlessSet(g, "WALPOST_TEST_POSTGRES", func() (string, func(context.Context) error, error) {
		p, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{
			Dir: filepath.Join(dir, "postgres"), NoFsync: true, Progress: progress,
		})
		if err != nil {
			return "", nil, err
		}
		return p.DSN, p.Stop, nil
	})
	s.unlessSet(g, "WALPOST_TEST_KAFKA", func() (string, func(context.Context) error, error) {
		k, err := devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: filepath.Join(dir, "kafka"), Progress: progress})
		if err != nil {
			return "", nil, err
		}
		return strings.Join(k.Brokers, ","), k.Stop, nil
	})
	s.unlessSet(g, "WALPOST_TEST_MONGO", func() (string, func(context.Context) error, error) {
		m, err := devstack.StartMongo(ctx, devstack.MongoOptions{Dir: filepath.Join(dir, "mongo"), Progress: progress})
		if err != nil {
			return "", nil, err
		}
		return m.URI, m.Stop, nil
	})
	return g.Wait()
}

func (s *servers) unlessSet(g *errgroup.Group, variable string, start func() (string, func(context.Context) error, error)) {
	if os.Getenv(variable) != "" {
		return
	}
	g.Go(func() error {
		address, stop, err := start()
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.environment = append(s.environment, variable+"="+address)
		s.stops = append(s.stops, stop)
		return nil
	})
}

// stop stops what has been started, all at once, and removes the folder.
func (s *servers) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	errs := make([]error, len(s.stops), len(s.stops)+1)
	var wg sync.WaitGroup
	for i, stop := range s.stops {
		wg.Go(func() { errs[i] = stop(ctx) })
	}
	wg.Wait()
	if s.remove != nil {
		errs = append(errs, s.remove())
	}
	return errors.Join(errs...)
}
