package kafkaflags

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// dialTimeout bounds the connection and the handshake together; it is the
// client's own default for the connection.
const dialTimeout = 10 * time.Second

// dialer connects by TLS. Its errors name the broker, which those of the
// client's own do not.
func (f *Flags) dialer() (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	config, err := f.tlsConfig()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		config := config.Clone()
		if config.ServerName == "" {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, fmt.Errorf("broker %q: %w", address, err)
			}
			config.ServerName = host
		}
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("broker %s: %w", address, err)
		}
		return conn, nil
	}, nil
}

func (f *Flags) tlsConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	var problems []error
	if f.CAFile != "" {
		pem, err := readPEM("--kafka-ca-file", f.CAFile)
		config.RootCAs = x509.NewCertPool()
		if err == nil && !config.RootCAs.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("--kafka-ca-file: %s holds no certificate in PEM form", f.CAFile)
		}
		problems = append(problems, err)
	}
	if f.CertFile != "" {
		_, err := f.certificate()
		problems = append(problems, err)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.certificate() }
	}
	return config, errors.Join(problems...)
}

// certificate is read again for each handshake, so that a short-lived one can
// be renewed while the program runs.
func (f *Flags) certificate() (*tls.Certificate, error) {
	cert, err1 := readPEM("--kafka-cert-file", f.CertFile)
	key, err2 := readPEM("--kafka-key-file", f.KeyFile)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--kafka-cert-file: %s with --kafka-key-file %s: %w", f.CertFile, f.KeyFile, err)
	}
	return &pair, nil
}
