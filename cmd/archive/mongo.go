package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/archive"
)

type mongoFlags struct {
	Mongo    string `help:"MongoDB connection string." required:"" env:"ARCHIVE_MONGO"`
	Database string `help:"Database with the events." default:"eventstore" env:"ARCHIVE_DATABASE"`
}

// withStore gives f a store of the flags' database. It does not wait for the
// server.
func (m *mongoFlags) withStore(ctx context.Context, f func(*archive.Store) error) error {
	client, err := archive.Connect(m.Mongo)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = client.Disconnect(ctx) // it only tells that connections were still in use
	}()
	return f(archive.NewStore(client.Database(m.Database), nil))
}

// hint adds to the error of a server that does not answer what to type next.
func (m *mongoFlags) hint(err error) error {
	if err == nil || !mongo.IsTimeout(err) && !mongo.IsNetworkError(err) && !strings.Contains(err.Error(), "server selection") {
		return err
	}
	return fmt.Errorf("MongoDB at %s does not answer (is it running? try: mongosh %q --eval 'db.hello()'; or name another with --mongo): %w",
		hosts(m.Mongo), withoutPassword(m.Mongo), err)
}

func hosts(uri string) string {
	if u, err := url.Parse(uri); err == nil && u.Host != "" {
		return u.Host
	}
	return "the address given" // several hosts with a password, for example
}

func withoutPassword(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return "mongodb://…"
	}
	return u.Redacted()
}
