package kafkaflags_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-048de892/walpost/internal/daemon"
	"github.com/seed-048de892/walpost/internal/daemon/kafkaflags"
	"github.com/seed-048de892/walpost/internal/devstack"
)

const password = "s3cret-4711"

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadCombinationsAreRefusedTogether(t *testing.T) {
	t.Parallel()
	ca, err := devstack.NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	one, err1 := ca.Issue("one")
	two, err2 := ca.Issue("two")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		flags kafkaflags.Flags
		want  []string // each problem's beginning; none: the flags are good
	}{
		"nothing": {},
		"TLS":     {flags: kafkaflags.Flags{TLS: true}},
		"TLS with all": {flags: kafkaflags.Flags{
			TLS: true, CAFile: ca.File, CertFile: one.CertFile, KeyFile: one.KeyFile, ServerName: "kafka", SASL: "PLAIN", User: "u", Password: password,
		}},
		"SCRAM without TLS": {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-256", User: "u", PasswordFile: file(t, password)}},
		"token file":        {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenFile: file(t, "a.b.")}},
		"token URL": {flags: kafkaflags.Flags{
			TLS: true, SASL: "OAUTHBEARER", TokenURL: "https://login.example/token", TokenScopes: []string{"kafka"}, User: "u", Password: password,
		}},
		"PLAIN without TLS, accepted": {flags: kafkaflags.Flags{SASL: "PLAIN", User: "u", Password: password, AllowPlaintext: true}},
		"token URL without TLS, accepted": {flags: kafkaflags.Flags{
			SASL: "OAUTHBEARER", TokenURL: "http://login.example/token", User: "u", Password: password, AllowPlaintext: true,
		}},

		"TLS files without TLS": {
			flags: kafkaflags.Flags{CAFile: ca.File, CertFile: one.CertFile, KeyFile: one.KeyFile, ServerName: "kafka"},
			want:  []string{"--kafka-ca-file", "--kafka-cert-file", "--kafka-key-file", "--kafka-server-name"},
		},
		"certificate without key":    {flags: kafkaflags.Flags{TLS: true, CertFile: one.CertFile}, want: []string{"--kafka-cert-file"}},
		"key without certificate":    {flags: kafkaflags.Flags{TLS: true, KeyFile: one.KeyFile}, want: []string{"--kafka-cert-file"}},
		"another's key":              {flags: kafkaflags.Flags{TLS: true, CertFile: one.CertFile, KeyFile: two.KeyFile}, want: []string{"--kafka-cert-file"}},
		"no such certificate":        {flags: kafkaflags.Flags{TLS: true, CertFile: "/none", KeyFile: "/none"}, want: []string{"--kafka-cert-file", "--kafka-key-file"}},
		"authority without one":      {flags: kafkaflags.Flags{TLS: true, CAFile: one.KeyFile}, want: []string{"--kafka-ca-file"}},
		"no such authority":          {flags: kafkaflags.Flags{TLS: true, CAFile: "/none"}, want: []string{"--kafka-ca-file"}},
		"password without mechanism": {flags: kafkaflags.Flags{Password: password}, want: []string{"--kafka-password"}},
		"all without mechanism": {
			flags: kafkaflags.Flags{User: "u", PasswordFile: file(t, password), TokenFile: file(t, "t"), TokenURL: "https://login.example"},
			want:  []string{"--kafka-user", "--kafka-password", "--kafka-token-file", "--kafka-token-url"},
		},
		"unknown mechanism":   {flags: kafkaflags.Flags{SASL: "GSSAPI"}, want: []string{"--kafka-sasl"}},
		"mechanism alone":     {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512"}, want: []string{"--kafka-user", "--kafka-password-file"}},
		"two passwords":       {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512", User: "u", Password: password, PasswordFile: file(t, password)}, want: []string{"--kafka-password-file"}},
		"no such file":        {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512", User: "u", PasswordFile: "/none"}, want: []string{"--kafka-password-file: open /none"}},
		"empty file":          {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512", User: "u", PasswordFile: file(t, "\n")}, want: []string{"--kafka-password-file"}},
		"two lines":           {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512", User: "u", PasswordFile: file(t, password+"\n"+password+"\n")}, want: []string{"--kafka-password-file"}},
		"token for SCRAM":     {flags: kafkaflags.Flags{SASL: "SCRAM-SHA-512", User: "u", Password: password, TokenFile: file(t, "t")}, want: []string{"--kafka-sasl"}},
		"PLAIN without TLS":   {flags: kafkaflags.Flags{SASL: "PLAIN", User: "u", Password: password}, want: []string{"--kafka-sasl"}},
		"token without TLS":   {flags: kafkaflags.Flags{SASL: "OAUTHBEARER", TokenFile: file(t, "t")}, want: []string{"--kafka-sasl"}},
		"bearer of nothing":   {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER"}, want: []string{"--kafka-token-file"}},
		"bearer of both":      {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenFile: file(t, "t"), TokenURL: "https://login.example", User: "u", Password: password}, want: []string{"--kafka-token-file"}},
		"user of a token":     {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenFile: file(t, "t"), User: "u"}, want: []string{"--kafka-user"}},
		"URL without client":  {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenURL: "https://login.example"}, want: []string{"--kafka-user"}},
		"URL by http":         {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenURL: "http://login.example", User: "u", Password: password}, want: []string{"--kafka-token-url"}},
		"URL with a password": {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenURL: "https://u:" + password + "@login.example", User: "u", Password: password}, want: []string{"--kafka-token-url"}},
		"no URL":              {flags: kafkaflags.Flags{TLS: true, SASL: "OAUTHBEARER", TokenURL: "login:" + password + "\x7f", User: "u", Password: password}, want: []string{"--kafka-token-url"}},
		"scopes without URL":  {flags: kafkaflags.Flags{TLS: true, TokenScopes: []string{"s"}}, want: []string{"--kafka-token-scopes"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options, err := tt.flags.Options()
			if len(tt.want) == 0 {
				if err != nil || (len(options) > 0) != (tt.flags.TLS || tt.flags.SASL != "") {
					t.Errorf("%d options, %v, want none of these problems", len(options), err)
				}
				return
			}
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			for _, want := range tt.want {
				if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, want+":") }) {
					t.Errorf("error %q, want a line that begins with %q", err, want)
				}
			}
			if len(lines) != len(tt.want) {
				t.Errorf("%d problems, want %d: %v", len(lines), len(tt.want), err)
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("error %q holds the password", err)
			}
		})
	}
}

type cli struct {
	Config kong.ConfigFlag `env:"T_CONFIG"`
	Run    command         `cmd:""`
}

type command struct {
	kafkaflags.Flags `embed:"" envprefix:"T_"`

	got *kafkaflags.Flags
}

func (c *command) Run() error {
	c.got = &c.Flags
	return nil
}

func parse(t *testing.T, args ...string) (*command, string, error) {
	t.Helper()
	var c cli
	var out bytes.Buffer
	err := daemon.Parse(t.Context(), "t", "Test.", &c, args, &out, &out)
	return &c.Run, out.String(), err
}

func TestSecretsComeFromTheEnvironmentOrAFileOnly(t *testing.T) {
	t.Setenv("T_BROKERS", "a:1,b:2")
	t.Setenv("T_KAFKA_SASL", "SCRAM-SHA-512")
	t.Setenv("T_KAFKA_USER", "ada")
	t.Run("environment", func(t *testing.T) {
		t.Setenv("T_KAFKA_PASSWORD", password)
		c, _, err := parse(t, "run")
		want := &kafkaflags.Flags{Brokers: []string{"a:1", "b:2"}, SASL: "SCRAM-SHA-512", User: "ada", Password: password}
		if err != nil || c.got == nil {
			t.Fatalf("parse: %v", err)
		}
		if diff := cmp.Diff(want, c.got); diff != "" {
			t.Error(diff)
		}
		_, help, err := parse(t, "run", "--help")
		if !errors.Is(err, daemon.ErrHelp) || !strings.Contains(help, "T_KAFKA_PASSWORD") || strings.Contains(help, password) {
			t.Errorf("help %v: want the variable's name and not its value:\n%s", err, help)
		}
	})
	t.Run("YAML file", func(t *testing.T) {
		t.Setenv("T_CONFIG", file(t, "run:\n  kafka-password: "+password+"\n"))
		if c, _, err := parse(t, "run"); err != nil || c.Password != password {
			t.Errorf("password %#v, %v, want that of the file", c.Password, err)
		}
	})
	for _, args := range [][]string{{"run", "--kafka-password=" + password}, {"run", "--kafka-password", password}} {
		_, out, err := parse(t, args...)
		exit, ok := errors.AsType[*daemon.ExitError](err)
		if !ok || exit.Code != daemon.ExitUsage || !strings.Contains(err.Error(), "--kafka-password-file") || strings.Contains(err.Error()+out, password) {
			t.Errorf("%q: %v, want it refused without repeating the password", args[:1], err)
		}
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	f := kafkaflags.Flags{Password: password}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("flags", slog.Any("flags", f), slog.Any("password", f.Password))
	encoded, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%v %+v %#v %s %q %x %s %s", f, f, f, f.Password, f.Password, f.Password, encoded, &log)
	if strings.Contains(text, password) || strings.Contains(text, fmt.Sprintf("%x", password)) {
		t.Errorf("printed: %s", text)
	}
	if string(f.Password) != password {
		t.Error("the password is lost")
	}
}
