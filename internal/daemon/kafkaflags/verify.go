package kafkaflags

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/oauth2"
)

// A ConnectError says why Kafka and this client do not come together for a
// reason that does not pass by itself, and what to do.
type ConnectError struct {
	Err  error
	Hint string
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to Kafka: %v; %s", e.Err, e.Hint) }

// Unwrap gives the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// verifyEvery is the pause between attempts to reach a cluster that is down,
// verifyLimit the time for one.
const (
	verifyEvery = 2 * time.Second
	verifyLimit = 15 * time.Second
)

// Verify connects until the cluster has answered once, then waits for the end
// of ctx and gives nil. It gives a [*ConnectError] where the cluster refuses
// this client or this client the cluster's certificate: components go on
// trying then, since they can't tell a wrong setting from a passing fault.
// A failure that may pass is logged when it is new. Run it beside the
// component, by daemon.Run.
func (f *Flags) Verify(ctx context.Context, log *slog.Logger) error {
	if err := f.answered(ctx, log); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// answered returns when the cluster has answered, or ctx has ended.
func (f *Flags) answered(ctx context.Context, log *slog.Logger) error {
	options, err := f.Options()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(f.Brokers...), kgo.RequestRetries(0))...)
	if err != nil {
		return fmt.Errorf("make the Kafka client: %w", err)
	}
	defer client.Close()
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	for last := ""; ; {
		attempt, cancel := context.WithTimeout(ctx, verifyLimit)
		err := client.Ping(attempt)
		cancel()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if refused := f.refused(err); refused != nil {
			return refused
		}
		if err.Error() != last {
			last = err.Error()
			log.WarnContext(ctx, "Kafka does not answer; trying again", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Explain gives the error of a component as a [*ConnectError] where Kafka has
// refused its login, and else as it is. Of TLS it says nothing: the error may
// be another server's, and what of it is Kafka's, Verify tells.
func (f *Flags) Explain(err error) error {
	if _, ok := errors.AsType[*ConnectError](err); ok || err == nil {
		return err
	}
	if hint := f.loginHint(err); hint != "" {
		return &ConnectError{Err: err, Hint: hint}
	}
	return err
}

// refused gives the error of a connection to Kafka as a [*ConnectError] where
// it does not pass by itself, else nil.
func (f *Flags) refused(err error) error {
	if hint := cmp.Or(f.tlsHint(err), f.loginHint(err)); hint != "" {
		return &ConnectError{Err: err, Hint: hint}
	}
	return nil
}

func (f *Flags) loginHint(err error) string {
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed) && f.SASL == Plain:
		return fmt.Sprintf("compare --kafka-user=%s and its password with the broker's JAAS configuration", f.User)
	case errors.Is(err, kerr.SaslAuthenticationFailed) && f.SASL != OAuthBearer:
		return fmt.Sprintf("compare --kafka-user=%s and its password with the broker's, run: kafka-configs.sh --bootstrap-server … --describe --entity-type users --entity-name %[1]s, which lists the mechanisms that it has a password for", f.User)
	case errors.Is(err, kerr.SaslAuthenticationFailed), isA[*refusedToken](err):
		return "look at the token's audience, scope and expiry"
	case refusedClient(err):
		return fmt.Sprintf("compare --kafka-user=%s, its secret and --kafka-token-scopes with the client of the authorization server", f.User)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fmt.Sprintf("that listener does not offer --kafka-sasl=%s; choose one of its sasl.enabled.mechanisms", f.SASL)
	case errors.Is(err, kerr.IllegalSaslState):
		return "that listener takes no SASL; leave --kafka-sasl out, or name the port of one that does in --brokers"
	}
	return ""
}

func (f *Flags) tlsHint(err error) string {
	if isA[x509.UnknownAuthorityError](err) {
		authorities := "the system's authorities"
		if f.CAFile != "" {
			authorities = f.CAFile
		}
		return fmt.Sprintf("%s did not sign that certificate: name the file with the authority that did in --kafka-ca-file, run: openssl s_client -showcerts -connect HOST:PORT, which shows the certificates", authorities)
	}
	if isA[x509.HostnameError](err) {
		return "connect by a name that is in the certificate (--brokers and the broker's advertised.listeners), or name one that is in it by --kafka-server-name"
	}
	if expired, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if expired.Reason == x509.Expired {
			return "renew the broker's certificate, or set the clock of this machine"
		}
		return "the broker needs another certificate"
	}
	if isA[tls.RecordHeaderError](err) {
		return "no TLS is spoken at that port: name the port of the broker's SSL or SASL_SSL listener in --brokers, or leave --kafka-tls out"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate") { // an alert, a type that crypto/tls keeps to itself
		if f.CertFile == "" {
			return "the broker asks for a client certificate: name it by --kafka-cert-file and --kafka-key-file"
		}
		return fmt.Sprintf("the broker refuses the client certificate of %s: it must be signed by an authority in the broker's ssl.truststore, and not be expired", f.CertFile)
	}
	if !f.TLS && strings.Contains(err.Error(), "tls alert record") { // the client's words, which has no type for it
		return "TLS is spoken at that port: add --kafka-tls"
	}
	return ""
}

// refusedClient tells whether the token URL refused the client, which does not
// pass by itself.
func refusedClient(err error) bool {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && refused.Response != nil && refused.Response.StatusCode/100 == 4 && refused.Response.StatusCode != http.StatusTooManyRequests
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
