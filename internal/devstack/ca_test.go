package devstack_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"testing"

	"github.com/seed-048de892/walpost/internal/devstack"
)

func TestCA(t *testing.T) {
	t.Parallel()
	ca, err := devstack.NewCA(t.TempDir() + "/ca")
	if err != nil {
		t.Fatal(err)
	}
	server, err1 := ca.Issue("server", "127.0.0.1", "db.example")
	client, err2 := ca.Issue("client")
	pem, err3 := os.ReadFile(ca.File)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in the authority's file")
	}
	for name, tt := range map[string]struct {
		pair  devstack.KeyPair
		host  string
		usage x509.ExtKeyUsage
		good  bool
	}{
		"server by address":      {server, "127.0.0.1", x509.ExtKeyUsageServerAuth, true},
		"server by name":         {server, "db.example", x509.ExtKeyUsageServerAuth, true},
		"server by another name": {server, "localhost", x509.ExtKeyUsageServerAuth, false},
		"server as a client":     {server, "", x509.ExtKeyUsageClientAuth, false},
		"client":                 {client, "", x509.ExtKeyUsageClientAuth, true},
		"client as a server":     {client, "", x509.ExtKeyUsageServerAuth, false},
	} {
		pair, err := tls.LoadX509KeyPair(tt.pair.CertFile, tt.pair.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tt.host, KeyUsages: []x509.ExtKeyUsage{tt.usage}})
		if (err == nil) != tt.good {
			t.Errorf("%s: %v, want good: %t", name, err, tt.good)
		}
		if info, err := os.Stat(tt.pair.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want a key that only we can read", name, info.Mode(), err)
		}
	}
}
