// Package kafkaflags has the command-line flags of a connection to Kafka and
// turns them into options of its client.
package kafkaflags

import (
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/seed-048de892/walpost/internal/daemon"
)

// Flags say where Kafka is, and how to connect to it. Embed them in a kong
// struct with an envprefix, which begins the names of their variables:
//
//	kafkaflags.Flags `embed:"" envprefix:"RELAY_"`
//
// Password and token files and the client's certificate are read again for
// each connection, so that they can be changed while the program runs; the CA
// file is read once.
type Flags struct {
	Brokers []string `help:"Seeds of the Kafka cluster, host:port, separated by commas." required:"" env:"BROKERS"`

	TLS        bool   `name:"kafka-tls" help:"Connect to Kafka by TLS." env:"KAFKA_TLS"`
	CAFile     string `name:"kafka-ca-file" help:"PEM file with the authorities that may sign the brokers' certificates. Default: the system's." placeholder:"FILE" env:"KAFKA_CA_FILE"`
	CertFile   string `name:"kafka-cert-file" help:"PEM file with this client's certificate and those between it and the authority." placeholder:"FILE" env:"KAFKA_CERT_FILE"`
	KeyFile    string `name:"kafka-key-file" help:"PEM file with the key of that certificate, unencrypted." placeholder:"FILE" env:"KAFKA_KEY_FILE"`
	ServerName string `name:"kafka-server-name" help:"Name to find in every broker's certificate. Default: the host that is connected to." placeholder:"NAME" env:"KAFKA_SERVER_NAME"`

	SASL         string        `name:"kafka-sasl" help:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Default: none." enum:",PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER" default:"" placeholder:"MECHANISM" env:"KAFKA_SASL"`
	User         string        `name:"kafka-user" help:"User for SASL; the client's id for --kafka-token-url." env:"KAFKA_USER"`
	Password     daemon.Secret `name:"kafka-password" help:"The user's password, or the client's secret for --kafka-token-url. Refused on the command line: set the variable." placeholder:"SECRET" env:"KAFKA_PASSWORD"`
	PasswordFile string        `name:"kafka-password-file" help:"File with the password." placeholder:"FILE" env:"KAFKA_PASSWORD_FILE"`
	TokenFile    string        `name:"kafka-token-file" help:"File with the token for OAUTHBEARER." placeholder:"FILE" env:"KAFKA_TOKEN_FILE"`
	TokenURL     string        `name:"kafka-token-url" help:"Where OAUTHBEARER gets tokens by OAuth 2.0 client credentials." placeholder:"URL" env:"KAFKA_TOKEN_URL"`
	TokenScopes  []string      `name:"kafka-token-scopes" help:"Scopes to ask that URL for, separated by commas." env:"KAFKA_TOKEN_SCOPES"`

	AllowPlaintext bool `name:"kafka-allow-plaintext-secrets" help:"Send passwords and tokens even where no TLS protects them." env:"KAFKA_ALLOW_PLAINTEXT_SECRETS"`
}

// The mechanisms of SASL.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// Options gives the client's options but for the seed brokers, which every
// component takes by themselves. All problems are reported together, by the
// names of the flags. It reads the files, so that one that is missing is found
// at once, and connects to nothing.
func (f *Flags) Options() ([]kgo.Opt, error) {
	if err := errors.Join(f.check()...); err != nil {
		return nil, err
	}
	var options []kgo.Opt
	if f.TLS {
		dial, err := f.dialer()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.Dialer(dial))
	}
	if f.SASL != "" {
		options = append(options, kgo.SASL(f.mechanism()))
	}
	return options, nil
}

// check gives every problem of the flags, alone and together.
func (f *Flags) check() (problems []error) {
	refuse := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for _, v := range []setting{
		{"--kafka-ca-file", f.CAFile}, {"--kafka-cert-file", f.CertFile}, {"--kafka-key-file", f.KeyFile}, {"--kafka-server-name", f.ServerName},
	} {
		if v.value != "" && !f.TLS {
			refuse("%s: %q does nothing without TLS; add --kafka-tls", v.flag, v.value)
		}
	}
	if (f.CertFile == "") != (f.KeyFile == "") {
		refuse("--kafka-cert-file: %q with --kafka-key-file %q: a client certificate needs both", f.CertFile, f.KeyFile)
	}
	password := f.Password != "" || f.PasswordFile != ""
	if f.Password != "" && f.PasswordFile != "" {
		refuse("--kafka-password-file: %q, and the password is set as well; keep one", f.PasswordFile)
	}
	switch f.SASL {
	case "":
		for _, v := range []setting{
			{"--kafka-user", f.User},
			{"--kafka-password", string(f.Password) + f.PasswordFile},
			{"--kafka-token-file", f.TokenFile},
			{"--kafka-token-url", f.TokenURL},
		} {
			if v.value != "" {
				refuse("%s: set without a mechanism; add --kafka-sasl=%s (or PLAIN, SCRAM-SHA-256, OAUTHBEARER)", v.flag, ScramSHA512)
			}
		}
	case Plain, ScramSHA256, ScramSHA512:
		if f.User == "" {
			refuse("--kafka-user: must be set for %s", f.SASL)
		}
		if !password {
			refuse("--kafka-password-file: must be set for %s, or the password in the environment", f.SASL)
		}
		if f.TokenFile != "" || f.TokenURL != "" {
			refuse("--kafka-sasl: %s takes no token; use %s, or leave --kafka-token-file and --kafka-token-url out", f.SASL, OAuthBearer)
		}
	case OAuthBearer:
		f.checkToken(password, refuse)
	default:
		refuse("--kafka-sasl: %q: use %s, %s, %s or %s", f.SASL, Plain, ScramSHA256, ScramSHA512, OAuthBearer)
	}
	if len(f.TokenScopes) > 0 && f.TokenURL == "" {
		refuse("--kafka-token-scopes: %q without a URL to ask; add --kafka-token-url", f.TokenScopes)
	}
	if (f.SASL == Plain || f.SASL == OAuthBearer) && !f.TLS && !f.AllowPlaintext {
		refuse("--kafka-sasl: %s without TLS shows the secret to everybody on the way; add --kafka-tls, use %s, or accept it with --kafka-allow-plaintext-secrets", f.SASL, ScramSHA512)
	}
	for _, v := range []setting{{"--kafka-password-file", f.PasswordFile}, {"--kafka-token-file", f.TokenFile}} {
		if v.value == "" {
			continue
		}
		if _, err := readNow(v.flag, v.value); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// A setting is a flag as the operator types it, and what it is set to.
type setting struct{ flag, value string }

func (f *Flags) checkToken(password bool, refuse func(string, ...any)) {
	if (f.TokenFile == "") == (f.TokenURL == "") {
		refuse("--kafka-token-file: %s needs either this or --kafka-token-url", OAuthBearer)
	}
	if f.TokenURL == "" {
		if f.User != "" || password {
			refuse("--kafka-user: a token from a file needs no user and no password; leave them out")
		}
		return
	}
	u, err := url.Parse(f.TokenURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		refuse("--kafka-token-url: want a URL like https://login.example/oauth2/token")
	case u.User != nil:
		refuse("--kafka-token-url: holds a user; put it in --kafka-user and --kafka-password-file")
	case u.Scheme == "http" && !f.AllowPlaintext:
		refuse("--kafka-token-url: http shows the client's secret to everybody on the way; use https, or accept it with --kafka-allow-plaintext-secrets")
	}
	if f.User == "" || !password {
		refuse("--kafka-user: --kafka-token-url needs the client's id here, and its secret in --kafka-password-file or the environment")
	}
}

// password is read again each time: it may have been changed.
func (f *Flags) password() (string, error) {
	if f.PasswordFile == "" {
		return string(f.Password), nil
	}
	return readNow("--kafka-password-file", f.PasswordFile)
}

func readNow(flag, path string) (string, error) {
	secret, err := daemon.ReadSecret(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return secret, nil
}

func readPEM(flag, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return b, nil
}
