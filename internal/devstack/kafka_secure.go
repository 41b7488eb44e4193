package devstack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// KafkaSecurity gives a broker more listeners, beside the plain one, all on
// 127.0.0.1. With an authorizer among the settings, name ANONYMOUS, whom the
// plain listener knows its clients by, in super.users.
type KafkaSecurity struct {
	// CA signs the broker's certificate, which is for 127.0.0.1 only, and
	// clients' certificates.
	CA *CA

	// Users are the passwords of those who may log in by PLAIN and by SCRAM
	// of both sizes. They are made when the storage is formatted. By
	// OAUTHBEARER any token without a signature is taken.
	Users map[string]string
}

// SecureBrokers are the addresses of the listeners of a [KafkaSecurity].
type SecureBrokers struct {
	SASL      []string // by TLS and SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER
	MTLS      []string // by TLS with a client certificate
	Plaintext []string // by SASL without TLS
	ScramOnly []string // by TLS and SCRAM-SHA-512 alone
}

// secureListeners are the listeners by name, with what each one speaks.
var secureListeners = []struct {
	name, protocol string
	mechanisms     []string
	brokers        func(*SecureBrokers) *[]string
}{
	{"SECURE", "SASL_SSL", []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}, func(s *SecureBrokers) *[]string { return &s.SASL }},
	{"SCRAM", "SASL_SSL", []string{"SCRAM-SHA-512"}, func(s *SecureBrokers) *[]string { return &s.ScramOnly }},
	{"CLEAR", "SASL_PLAINTEXT", []string{"PLAIN", "SCRAM-SHA-512"}, func(s *SecureBrokers) *[]string { return &s.Plaintext }},
	{"MUTUAL", "SSL", nil, func(s *SecureBrokers) *[]string { return &s.MTLS }},
}

const loginModules = "org.apache.kafka.common.security."

// secure adds the listeners to the settings of a node, and their addresses to
// the answer.
func (n *node) secure(ctx context.Context, o *KafkaSecurity, settings map[string]string) (SecureBrokers, error) {
	var brokers SecureBrokers
	cert, key, err := o.CA.issue("broker", []string{"127.0.0.1"})
	if err != nil {
		return brokers, err
	}
	store, trust := n.path("broker.pem"), n.path("trusted.pem")
	authority, err := os.ReadFile(o.CA.File)
	if err := errors.Join(err, os.WriteFile(store, slices.Concat(key, cert), 0o600), os.WriteFile(trust, authority, 0o644)); err != nil {
		return brokers, err
	}
	maps.Copy(settings, map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": store,
		"ssl.truststore.type": "PEM", "ssl.truststore.location": trust,
		"listener.name.mutual.ssl.client.auth": "required",
	})
	var plain strings.Builder
	plain.WriteString(loginModules + `plain.PlainLoginModule required`)
	for _, user := range slices.Sorted(maps.Keys(o.Users)) {
		fmt.Fprintf(&plain, ` user_%s="%s"`, user, o.Users[user])
	}
	logins := map[string]string{
		"PLAIN": plain.String() + ";", "OAUTHBEARER": loginModules + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
		"SCRAM-SHA-256": loginModules + "scram.ScramLoginModule required;", "SCRAM-SHA-512": loginModules + "scram.ScramLoginModule required;",
	}
	for _, l := range secureListeners {
		port, err := freePort(ctx)
		if err != nil {
			return brokers, err
		}
		*l.brokers(&brokers) = []string{loopback(port)}
		settings["listeners"] += "," + l.name + "://" + loopback(port)
		settings["advertised.listeners"] += "," + l.name + "://" + loopback(port)
		settings["listener.security.protocol.map"] += "," + l.name + ":" + l.protocol
		prefix := "listener.name." + strings.ToLower(l.name) + "."
		if len(l.mechanisms) > 0 {
			settings[prefix+"sasl.enabled.mechanisms"] = strings.Join(l.mechanisms, ",")
		}
		for _, m := range l.mechanisms {
			settings[prefix+strings.ToLower(m)+".sasl.jaas.config"] = logins[m]
		}
	}
	return brokers, nil
}

// scramUsers are the arguments that make the users when the storage is
// formatted.
func (o *KafkaSecurity) scramUsers() (args []string) {
	if o == nil {
		return nil
	}
	for _, user := range slices.Sorted(maps.Keys(o.Users)) {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", mechanism+"=[name="+user+",password="+o.Users[user]+"]")
		}
	}
	return args
}
