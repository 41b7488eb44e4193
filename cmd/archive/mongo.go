package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/seed-048de892/walpost/archive"
	"github.com/seed-048de892/walpost/internal/daemon"
)

type mongoFlags struct {
	Mongo     string `help:"MongoDB connection string, which other accounts can read here: put one with a password in the variable or in --mongo-file." placeholder:"URI" env:"ARCHIVE_MONGO"`
	MongoFile string `help:"File with the connection string, read at the start." placeholder:"FILE" env:"ARCHIVE_MONGO_FILE"`
	Database  string `help:"Database with the events." default:"eventstore" env:"ARCHIVE_DATABASE"`
}

// uri gives the connection string of one of the two flags.
func (m *mongoFlags) uri() (string, error) {
	switch {
	case m.Mongo != "" && m.MongoFile != "":
		return "", errors.New("--mongo-file: set together with --mongo; keep one")
	case m.MongoFile != "":
		uri, err := daemon.ReadSecret(m.MongoFile)
		if err != nil {
			return "", fmt.Errorf("--mongo-file: %w", err)
		}
		return uri, nil
	case m.Mongo == "":
		return "", errors.New("--mongo: must be set, or --mongo-file, like mongodb://mongo.example:27017")
	}
	return m.Mongo, nil
}

// withStore gives f a store of the flags' database. It does not wait for the
// server.
func (m *mongoFlags) withStore(ctx context.Context, f func(*archive.Store) error) error {
	uri, err := m.uri()
	if err != nil {
		return &daemon.ExitError{Code: daemon.ExitUsage, Err: err}
	}
	client, err := archive.Connect(uri)
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
	uri, uriErr := m.uri()
	if uriErr != nil {
		return err // it was there a moment ago
	}
	return fmt.Errorf("MongoDB at %s does not answer (is it running? try: mongosh %q --eval 'db.hello()'; or name another with --mongo): %w",
		hosts(uri), withoutPassword(uri), err)
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
