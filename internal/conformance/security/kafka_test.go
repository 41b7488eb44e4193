package security

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack"
)

// client is Kafka's client with the options of f, and no retries, so that what
// is refused is told at once.
func client(t *testing.T, f *kafkaflags.Flags) *kgo.Client {
	t.Helper()
	options, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kgo.NewClient(append(options, kgo.SeedBrokers(f.Brokers...), kgo.RequestRetries(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestEveryLoginConnects(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	logins := append(w.logins(t, tester), login{"token URL", kafkaflags.Flags{
		Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File, SASL: kafkaflags.OAuthBearer, AllowPlaintext: true, // for http
		User: tester, Password: secretOf(tester), TokenURL: tokens(t, tester, passwords[tester], new(atomic.Int32)), TokenScopes: []string{"kafka"},
	}})
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			if err := client(t, &l.flags).Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is refused for good ends the program with an error that names the flag
// and holds no secret.
func TestRefusedLoginsSayWhatToDo(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	const wrong = daemon.Secret("wrong-secret-99")
	tls := kafkaflags.Flags{Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File}
	valid := tls
	valid.SASL, valid.User, valid.Password = kafkaflags.ScramSHA512, tester, secretOf(tester)
	tests := map[string]struct {
		from   kafkaflags.Flags
		change func(f *kafkaflags.Flags)
		want   []string
	}{
		"wrong password, PLAIN":         {valid, func(f *kafkaflags.Flags) { f.SASL, f.Password = kafkaflags.Plain, wrong }, []string{"SASL_AUTHENTICATION_FAILED", "--kafka-user=tester"}},
		"wrong password, SCRAM-SHA-256": {valid, func(f *kafkaflags.Flags) { f.SASL, f.Password = kafkaflags.ScramSHA256, wrong }, []string{"SASL_AUTHENTICATION_FAILED", "kafka-configs.sh"}},
		"wrong password, SCRAM-SHA-512": {valid, func(f *kafkaflags.Flags) { f.Password = wrong }, []string{"SASL_AUTHENTICATION_FAILED", "kafka-configs.sh"}},
		"unknown user":                  {valid, func(f *kafkaflags.Flags) { f.User = "nobody" }, []string{"--kafka-user=nobody"}},
		"mechanism not offered":         {valid, func(f *kafkaflags.Flags) { f.Brokers, f.SASL = w.kafka.Secure.ScramOnly, kafkaflags.ScramSHA256 }, []string{"--kafka-sasl=SCRAM-SHA-256", "sasl.enabled.mechanisms"}},
		"SASL where none is taken": {valid, func(f *kafkaflags.Flags) {
			f.Brokers, f.TLS, f.CAFile = w.kafka.Brokers, false, ""
		}, []string{"takes no SASL", "--kafka-sasl"}},
		"expired token": {tls, func(f *kafkaflags.Flags) {
			f.SASL, f.TokenFile = kafkaflags.OAuthBearer, secret(t, unsecured(tester, -time.Hour))
		}, []string{"refuses the token", "expiry"}},
		"refused by the token URL": {tls, func(f *kafkaflags.Flags) {
			f.SASL, f.User, f.Password, f.AllowPlaintext = kafkaflags.OAuthBearer, tester, wrong, true
			f.TokenURL, f.TokenScopes = tokens(t, tester, passwords[tester], new(atomic.Int32)), []string{"kafka"}
		}, []string{"invalid_client", "--kafka-token-scopes"}},
		"wrong authority": {valid, func(f *kafkaflags.Flags) { f.CAFile = w.stranger.File }, []string{w.kafka.Secure.SASL[0], "--kafka-ca-file"}},
		"no authority":    {valid, func(f *kafkaflags.Flags) { f.CAFile = "" }, []string{"the system's authorities", "--kafka-ca-file"}},
		"wrong host name": {valid, func(f *kafkaflags.Flags) { f.ServerName = "kafka.example" }, []string{"kafka.example", "--kafka-server-name"}},
		"host not in the certificate": {valid, func(f *kafkaflags.Flags) {
			f.Brokers = []string{"localhost:" + port(w.kafka.Secure.SASL[0])}
		}, []string{"localhost", "advertised.listeners"}},
		"no client certificate": {tls, func(f *kafkaflags.Flags) { f.Brokers = w.kafka.Secure.MTLS }, []string{"--kafka-cert-file and --kafka-key-file"}},
		"client certificate of a stranger": {tls, func(f *kafkaflags.Flags) {
			f.Brokers, f.CertFile, f.KeyFile = w.kafka.Secure.MTLS, w.foreign.CertFile, w.foreign.KeyFile
		}, []string{w.foreign.CertFile, "ssl.truststore"}},
		"no TLS where it is spoken": {tls, func(f *kafkaflags.Flags) { f.TLS, f.CAFile = false, "" }, []string{"add --kafka-tls"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := tt.from
			tt.change(&f)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := f.Verify(ctx, slog.New(slog.NewTextHandler(t.Output(), nil)))
			if _, ok := errors.AsType[*kafkaflags.ConnectError](err); !ok {
				t.Fatalf("error = %v, want a ConnectError", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want it to say %q", err, want)
				}
			}
			for _, hidden := range []string{string(wrong), passwords[tester]} {
				if strings.Contains(err.Error(), hidden) {
					t.Errorf("error %q holds a password", err)
				}
			}
			t.Log(err)
		})
	}
}

// Two mistakes look like a broker that is just going away: the connection is
// closed without a word. They are logged, with what they may be, and tried again.
func TestClosedWithoutAWordIsLoggedAndTriedAgain(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	for name, tt := range map[string]struct {
		flags kafkaflags.Flags
		want  string
	}{
		"TLS where none is spoken":  {kafkaflags.Flags{Brokers: w.kafka.Brokers, TLS: true, CAFile: w.ca.File}, "TLS misconfigured"},
		"no SASL where it is asked": {kafkaflags.Flags{Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File}, "is SASL missing"},
		"broker down":               {kafkaflags.Flags{Brokers: []string{"127.0.0.1:1"}}, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			log := &warnings{first: make(chan string, 1)}
			done := make(chan error, 1)
			go func() { done <- tt.flags.Verify(ctx, slog.New(slog.NewTextHandler(log, nil))) }()
			select {
			case line := <-log.first:
				if !strings.Contains(line, tt.want) {
					t.Errorf("log %q, want it to say %q", line, tt.want)
				}
			case err := <-done:
				t.Fatalf("Verify = %v, want it to go on", err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Verify = %v, want nil after its context ended", err)
			}
		})
	}
}

// warnings passes on its first line.
type warnings struct{ first chan string }

func (w *warnings) Write(line []byte) (int, error) {
	select {
	case w.first <- string(line):
	default:
	}
	return len(line), nil
}

// A password that was changed in its file counts from the next connection on.
func TestAChangedPasswordFileIsReadAgain(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	path := secret(t, "wrong-secret-99")
	f := kafkaflags.Flags{
		Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File, SASL: kafkaflags.ScramSHA512, User: tester, PasswordFile: path,
	}
	c := client(t, &f)
	if err := c.Ping(t.Context()); err == nil {
		t.Fatal("a wrong password connects")
	}
	if err := os.WriteFile(path, []byte(passwords[tester]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("after the file was mended: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Options(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("--kafka-password-file: open %s", path)) {
		t.Errorf("without the file: %v, want the flag and the file", err)
	}
}

// So does a client certificate, which a renewal replaces.
func TestARenewedClientCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	dir := t.TempDir()
	f := kafkaflags.Flags{Brokers: w.kafka.Secure.MTLS, TLS: true, CAFile: w.ca.File, CertFile: dir + "/cert", KeyFile: dir + "/key"}
	use := func(pair devstack.KeyPair) {
		for from, to := range map[string]string{pair.CertFile: f.CertFile, pair.KeyFile: f.KeyFile} {
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	use(w.foreign)
	c := client(t, &f)
	if err := c.Ping(t.Context()); err == nil {
		t.Fatal("a stranger's certificate connects")
	}
	use(w.client)
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

// A token is asked for once while it is good, not at each connection.
func TestATokenIsKeptUntilItExpires(t *testing.T) {
	t.Parallel()
	w := theWorld(t)
	var asked atomic.Int32
	f := kafkaflags.Flags{
		Brokers: w.kafka.Secure.SASL, TLS: true, CAFile: w.ca.File, SASL: kafkaflags.OAuthBearer, AllowPlaintext: true,
		User: tester, Password: secretOf(tester), TokenURL: tokens(t, tester, passwords[tester], &asked), TokenScopes: []string{"kafka"},
	}
	options, err := f.Options()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // each client authenticates anew
		c, err := kgo.NewClient(append(options, kgo.SeedBrokers(f.Brokers...), kgo.RequestRetries(0))...)
		if err != nil {
			t.Fatal(err)
		}
		err = c.Ping(t.Context())
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked for a token %d times, want once", n)
	}
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
