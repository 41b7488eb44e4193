package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresFlags say which database a daemon uses, for embedding in its kong
// struct. Give them an envprefix to name their variables. What neither flag
// says comes from libpq's variables: PGPASSWORD, PGPASSFILE, PGSSLMODE,
// PGSSLROOTCERT, PGSSLCERT, PGSSLKEY and the others.
type PostgresFlags struct {
	Postgres     string `help:"Connection string of the database, which other accounts can read here: leave the password to the variable, --postgres-file, PGPASSWORD or a passfile." placeholder:"DSN" env:"POSTGRES"`
	PostgresFile string `help:"File with the connection string, read at the start." placeholder:"FILE" env:"POSTGRES_FILE"`
}

// DSN gives the connection string, which pgx has parsed once: see [DSN].
func (f PostgresFlags) DSN() (string, error) {
	if f.Postgres == "" && f.PostgresFile == "" {
		return "", errors.New("--postgres: must be set, or --postgres-file, like postgres://relay@db.example/userdb?sslmode=verify-full")
	}
	return DSN("--postgres", f.Postgres, f.PostgresFile)
}

// DSN gives the connection string that is the value of flag, or is in the file
// of the flag with -file behind it, once pgx has parsed it; nothing where
// neither is set. Errors name the flag and hold nothing of the string: pgx
// takes recognizable passwords out of its own, and what can't be parsed may
// not be recognizable.
func DSN(flag, value, file string) (string, error) {
	if value != "" && file != "" {
		return "", fmt.Errorf("%s-file: set together with %[1]s; keep one", flag)
	}
	if value == "" && file == "" {
		return "", nil
	}
	if file != "" {
		flag += "-file"
		var err error
		if value, err = ReadSecret(file); err != nil {
			return "", fmt.Errorf("%s: %w", flag, err)
		}
	}
	if _, err := pgx.ParseConfig(value); err != nil {
		if file, ok := errors.AsType[*fs.PathError](err); ok { // of sslrootcert, sslcert, sslkey or a service file
			return "", fmt.Errorf("%s: %w", flag, file)
		}
		return "", fmt.Errorf("%s: no connection string (not printed here, as it may hold a password); write postgres://user@host:5432/database?sslmode=verify-full, with signs in the password percent-encoded", flag)
	}
	return value, nil
}

// Explain adds to the error of a connection that PostgreSQL or its certificate
// refused what to do about it, and gives any other error as it is.
func (f PostgresFlags) Explain(err error) error {
	if !isA[*pgconn.ConnectError](err) {
		return err
	}
	hint := ""
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "28P01": // invalid_password
			hint = "the password comes from the connection string, else PGPASSWORD, else the passfile (PGPASSFILE, ~/.pgpass), in this order; change the role's by: alter role … password '…'"
		case "28000": // invalid_authorization_specification
			hint = "look at pg_hba.conf: it must let this role in from here, and may want TLS (sslmode=verify-full) or a client certificate of the role's name (sslcert, sslkey); run: select * from pg_hba_file_rules"
		}
	}
	switch {
	case isA[x509.UnknownAuthorityError](err):
		hint = "name the file with the authority that signed the server's certificate: sslrootcert=FILE in the connection string, or PGSSLROOTCERT"
	case isA[x509.HostnameError](err):
		hint = "connect by a name that is in the server's certificate; sslmode=verify-ca does not compare names"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate") { // an alert of TLS
		hint = "the server refuses the client certificate of sslcert: it must be signed by an authority in the server's ssl_ca_file, and not be expired"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, hint)
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
