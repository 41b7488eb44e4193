package devstack

import (
	"context"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
)

// Fetch gets into the cache what the machine lacks of PostgreSQL 14 to 18,
// Apache Kafka and MongoDB, all at once, so that later starts need no network.
func Fetch(ctx context.Context, progress io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for version := range postgresPackages {
			if _, err := findPostgres(ctx, version, progress); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		_, err := findKafka(ctx, progress)
		return err
	})
	g.Go(func() error {
		if os.Getenv("WALPOST_MONGO_URI") != "" || has("mongod") {
			return nil
		}
		_, err := findSecantus(ctx, progress)
		return err
	})
	return g.Wait()
}
