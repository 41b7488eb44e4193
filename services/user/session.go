package user

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-048de892/walpost/outbox"
)

// A session is one log-in, until it expires or is revoked. Its token holds
// nothing else, and signing it again gives the same token: so no token needs
// to be stored.
type session struct {
	ID        outbox.ID `json:"id"`
	UserID    outbox.ID `json:"userId"`
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// newSession starts a session now. A token's times are whole seconds.
func newSession(userID outbox.ID, now time.Time, ttl time.Duration) session {
	at := now.Truncate(time.Second)
	return session{ID: outbox.NewID(), UserID: userID, IssuedAt: at, ExpiresAt: at.Add(ttl)}
}

func (s *session) queueInsert(batch *pgx.Batch) {
	batch.Queue(`insert into sessions (id, user_id, issued_at, expires_at) values ($1, $2, $3, $4)`,
		s.ID, s.UserID, s.IssuedAt, s.ExpiresAt)
}

// A signer signs sessions with Ed25519 and verifies them, also those of its
// forerunners.
type signer struct {
	issuer string
	kid    string
	key    ed25519.PrivateKey
	public map[string]ed25519.PublicKey // by key id
}

// sign gives the token of s, a JWT.
func (g *signer) sign(s session) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.RegisteredClaims{
		Issuer: g.issuer, Subject: s.UserID.String(), ID: s.ID.String(),
		IssuedAt: jwt.NewNumericDate(s.IssuedAt), ExpiresAt: jwt.NewNumericDate(s.ExpiresAt),
	})
	token.Header["kid"] = g.kid
	signed, err := token.SignedString(g.key)
	if err != nil {
		return "", fmt.Errorf("sign session: %w", err)
	}
	return signed, nil
}

// verify gives the session of a token that this service signed and that has
// not expired. Whether it was revoked, only the database knows.
func (g *signer) verify(token string) (session, error) {
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		if key, ok := g.public[kid]; ok {
			return key, nil
		}
		return nil, errors.New("unknown key")
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer(g.issuer), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		return session{}, errNoSession
	}
	id, idErr := outbox.ParseID(claims.ID)
	userID, userErr := outbox.ParseID(claims.Subject)
	if idErr != nil || userErr != nil {
		return session{}, errNoSession
	}
	return session{ID: id, UserID: userID, IssuedAt: claims.IssuedAt.UTC(), ExpiresAt: claims.ExpiresAt.UTC()}, nil
}

// A JWKS is the public keys that verify sessions (RFC 7517).
type JWKS struct {
	Keys []JWK `json:"keys"`
}

// A JWK is an Ed25519 public key (RFC 8037).
type JWK struct {
	KeyType string `json:"kty" example:"OKP"`
	Curve   string `json:"crv" example:"Ed25519"`
	X       string `json:"x"`
	KeyID   string `json:"kid"`
	Use     string `json:"use" example:"sig"`
	Alg     string `json:"alg" example:"EdDSA"`
}

func (g *signer) jwks() JWKS {
	set := JWKS{Keys: []JWK{}}
	for kid, key := range g.public {
		set.Keys = append(set.Keys, JWK{
			KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(key), KeyID: kid, Use: "sig", Alg: "EdDSA",
		})
	}
	return set
}

// add makes key one of those that verify, and the one that signs.
func (g *signer) add(key ed25519.PrivateKey) {
	public := key.Public().(ed25519.PublicKey)
	g.kid, g.key = thumbprint(public), key
	g.public[g.kid] = public
}

// thumbprint is the key's id by RFC 7638.
func thumbprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// loadSigner takes the key from pemKey, a PKCS#8 private key, or where there
// is none from the database, which all replicas share. The first replica to
// come makes it.
func loadSigner(ctx context.Context, db *pgxpool.Pool, issuer string, pemKey []byte) (*signer, error) {
	g := &signer{issuer: issuer, public: map[string]ed25519.PublicKey{}}
	if len(pemKey) > 0 {
		key, err := parseKey(pemKey)
		if err != nil {
			return nil, err
		}
		g.add(key)
		return g, nil
	}
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue(`lock table signing_keys in share row exclusive mode`)
		batch.Queue(`insert into signing_keys (id, seed) select $1, $2 where not exists (select from signing_keys)`,
			thumbprint(fresh.Public().(ed25519.PublicKey)), fresh.Seed())
		if err := send(ctx, tx, &batch); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select seed from signing_keys order by created_at, id`)
		if err != nil {
			return err
		}
		seeds, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		for _, seed := range seeds {
			if len(seed) != ed25519.SeedSize {
				return fmt.Errorf("a seed in signing_keys has %d bytes, not %d", len(seed), ed25519.SeedSize)
			}
			g.add(ed25519.NewKeyFromSeed(seed))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("load signing keys: %w", err)
	}
	return g, nil
}

func parseKey(pemKey []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(pemKey)
	if block == nil {
		return nil, errors.New("signing key: is not PEM; make one: openssl genpkey -algorithm ed25519")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing key: is %T, not Ed25519; make one: openssl genpkey -algorithm ed25519", parsed)
	}
	return key, nil
}
