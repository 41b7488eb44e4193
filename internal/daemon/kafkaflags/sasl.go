package kafkaflags

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokenTimeout bounds one request for a token.
const tokenTimeout = 10 * time.Second

// mechanism gives the SASL mechanism, which asks for its secret at each
// authentication.
func (f *Flags) mechanism() sasl.Mechanism {
	scramAuth := func(context.Context) (scram.Auth, error) {
		password, err := f.password()
		return scram.Auth{User: f.User, Pass: password}, err
	}
	switch f.SASL {
	case Plain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := f.password()
			return plain.Auth{User: f.User, Pass: password}, err
		})
	case ScramSHA256:
		return scram.Sha256(scramAuth)
	case ScramSHA512:
		return scram.Sha512(scramAuth)
	}
	token := f.tokenFromURL()
	if f.TokenFile != "" {
		token = func(context.Context) (string, error) { return readNow("--kafka-token-file", f.TokenFile) }
	}
	return bearer{oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		t, err := token(ctx)
		return oauth.Auth{Token: t}, err
	})}
}

// tokenFromURL asks for a token when there is none or it is about to expire.
func (f *Flags) tokenFromURL() func(context.Context) (string, error) {
	client := &http.Client{Timeout: tokenTimeout}
	var mu sync.Mutex
	var last *oauth2.Token
	return func(ctx context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if last.Valid() { // also of nil
			return last.AccessToken, nil
		}
		secret, err := f.password()
		if err != nil {
			return "", err
		}
		config := clientcredentials.Config{ClientID: f.User, ClientSecret: secret, TokenURL: f.TokenURL, Scopes: f.TokenScopes}
		token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
		if err != nil {
			return "", &tokenError{err: err}
		}
		last = token
		return token.AccessToken, nil
	}
}

// A tokenError says that the token URL gave no token.
type tokenError struct{ err error }

func (e *tokenError) Error() string {
	return fmt.Sprintf("get a token from --kafka-token-url: %v", e.err)
}
func (e *tokenError) Unwrap() error { return e.err }

// A bearer is OAUTHBEARER that keeps why a broker refuses the token: it says
// so in a challenge (RFC 7628, 3.2.3), which the client's own takes for a
// fault of the protocol.
type bearer struct{ sasl.Mechanism }

func (b bearer) Authenticate(ctx context.Context, host string) (sasl.Session, []byte, error) {
	session, first, err := b.Mechanism.Authenticate(ctx, host)
	return bearerSession{session}, first, err
}

type bearerSession struct{ sasl.Session }

func (s bearerSession) Challenge(challenge []byte) (bool, []byte, error) {
	if len(challenge) > 0 {
		return false, nil, &refusedToken{reason: strings.ToValidUTF8(string(challenge), "?")}
	}
	return s.Session.Challenge(challenge)
}

// A refusedToken has what the broker said about the token, JSON of RFC 7628.
type refusedToken struct{ reason string }

func (e *refusedToken) Error() string { return "the broker refuses the token: " + e.reason }
