package devstack

import (
	"errors"
	"maps"
	"os"
)

// secure writes the files that o.TLS and o.HBA ask for, as the server's
// account reads them, and adds their settings.
func (c *cluster) secure(o *PostgresOptions) error {
	settings, files := map[string]string{}, map[string][]byte{}
	if o.HBA != "" {
		settings["hba_file"] = c.path("pg_hba.conf")
		files[settings["hba_file"]] = []byte(o.HBA)
	}
	if o.TLS != nil {
		cert, key, err1 := o.TLS.issue("postgres-server", []string{"127.0.0.1"})
		authority, err2 := os.ReadFile(o.TLS.File)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		maps.Copy(settings, map[string]string{
			"ssl": "on", "ssl_cert_file": c.path("server.pem"), "ssl_key_file": c.path("server.key"), "ssl_ca_file": c.path("ca.pem"),
		})
		files[settings["ssl_cert_file"]], files[settings["ssl_key_file"]], files[settings["ssl_ca_file"]] = cert, key, authority
	}
	for path, content := range files {
		if err := errors.Join(os.WriteFile(path, content, 0o600), give(c.account, path)); err != nil {
			return err
		}
	}
	maps.Copy(settings, o.Settings)
	o.Settings = settings
	return nil
}
