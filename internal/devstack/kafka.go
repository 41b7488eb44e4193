package devstack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// KafkaOptions describe a private Apache Kafka.
type KafkaOptions struct {
	// Dir keeps the data and the log. It must be set.
	Dir string

	// Port to listen on. Defaults to a free one. Clients of a broker that is
	// to be restarted need it at the same port again.
	Port int

	// Settings are broker properties, by name; they win over ours.
	Settings map[string]string

	// Security adds listeners with TLS and SASL. Defaults to none.
	Security *KafkaSecurity

	// Proxy adds a plain listener whose clients are told to come through this
	// proxy, which is pointed at it: what goes wrong there is theirs alone.
	// Defaults to none.
	Proxy *Proxy

	// Progress gets a line for what takes long. Defaults to nobody.
	Progress io.Writer
}

// Kafka is a running private Apache Kafka: one KRaft node, broker and
// controller in one process. Topics are not made by themselves.
type Kafka struct {
	*process

	// Brokers are the addresses to give to a client.
	Brokers []string

	// Secure are those of KafkaOptions.Security, at new ports at each start.
	Secure SecureBrokers
}

// StartKafka starts Apache Kafka in o.Dir, formatting the storage on first
// use. It needs Java 17; the jars are fetched with mvn. To restart a broker,
// call it again with the same Dir and Port once the broker before is gone.
func StartKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	h, err := openHome(o.Dir)
	if err != nil {
		return nil, startError("Apache Kafka", o.Dir, "", err)
	}
	n := &node{home: h, data: h.path("data"), log: h.path("log/kafka.log")}
	var k *Kafka
	if n.kafkaHome, err = findKafka(ctx, o.Progress); err == nil {
		k, err = n.start(ctx, o)
	}
	if err != nil {
		h.release()
		return nil, startError("Apache Kafka", h.dir, n.log, err)
	}
	return k, nil
}

// A node is the folder of a Kafka that is being started.
type node struct {
	*home
	data, log string
	kafkaHome
}

func (n *node) start(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	if o.Port == 0 {
		var err error
		if o.Port, err = freePort(ctx); err != nil {
			return nil, err
		}
	}
	controller, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	settings := kafkaSettings(o.Port, controller)
	var secure SecureBrokers
	if o.Security != nil {
		if secure, err = n.secure(ctx, o.Security, settings); err != nil {
			return nil, err
		}
	}
	if o.Proxy != nil {
		if err := throughProxy(ctx, o.Proxy, settings); err != nil {
			return nil, err
		}
	}
	maps.Copy(settings, o.Settings)
	p, err := n.launch(ctx, settings, clusterID(), o.Security.scramUsers())
	if err != nil {
		return nil, err
	}
	k := &Kafka{process: p, Brokers: []string{loopback(o.Port)}, Secure: secure}
	if err := p.await(ctx, k.ready); err != nil {
		return nil, err
	}
	return k, nil
}

// throughProxy adds a listener that is reached through p.
func throughProxy(ctx context.Context, p *Proxy, settings map[string]string) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	settings["listeners"] += ",PROXIED://" + loopback(port)
	settings["advertised.listeners"] += ",PROXIED://" + p.Addr
	settings["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
	p.Redirect(loopback(port))
	return nil
}

// launch starts the broker, formatting its storage on first use.
func (n *node) launch(ctx context.Context, settings map[string]string, cluster string, scramUsers []string) (*process, error) {
	if err := n.format(ctx, settings, cluster, scramUsers); err != nil {
		return nil, err
	}
	if err := vacant(ctx, n.data); err != nil {
		return nil, err
	}
	properties := n.path("server.properties")
	if err := writeProperties(properties, settings, n.data); err != nil {
		return nil, err
	}
	return command{
		path: n.java,
		args: n.arguments(append(n.shared, "-Xms128m", "-Xmx384m"), "kafka.Kafka", properties),
		dir:  n.data, log: n.log, death: syscall.SIGKILL,
	}.start(n.home)
}

// format makes the storage on first use, under another name that it loses at
// the end, so that a format that was cut off leaves no half of one.
func (n *node) format(ctx context.Context, settings map[string]string, cluster string, scramUsers []string) error {
	if exists(n.data) {
		return nil
	}
	partial, properties := n.data+".partial", n.path("format.properties")
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := writeProperties(properties, settings, partial); err != nil {
		return err
	}
	// The archive is not to be written by this one, which starts no broker.
	options := []string{"-Xmx128m", "-XX:TieredStopAtLevel=1"}
	options = append(options, slices.DeleteFunc(slices.Clone(n.shared), func(o string) bool {
		return strings.HasPrefix(o, "-XX:Archive")
	})...)
	cmd := exec.CommandContext(ctx, n.java, append(n.arguments(options, "kafka.tools.StorageTool",
		"format", "-t", cluster, "-c", properties), scramUsers...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage: %w\n%s", err, bytes.TrimSpace(out))
	}
	return os.Rename(partial, n.data)
}

// clusterID makes a random UUID as Kafka writes them. One that begins with a
// dash would be read as an option, so Kafka makes none and neither do we.
func clusterID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(b)
}

// kafkaSettings are those of a node of its own that starts fast, keeps to a
// small memory and never deletes a record by age.
func kafkaSettings(port, controller int) map[string]string {
	return map[string]string{
		"process.roles": "broker,controller",
		"node.id":       "1",
		// Voters by configuration, not by --standalone: those would be kept
		// in the data, with a port that may be taken at the next start.
		"controller.quorum.voters":       "1@" + loopback(controller),
		"listeners":                      "PLAINTEXT://" + loopback(port) + ",CONTROLLER://" + loopback(controller),
		"advertised.listeners":           "PLAINTEXT://" + loopback(port),
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names":      "CONTROLLER",
		"inter.broker.listener.name":     "PLAINTEXT",
		"num.partitions":                 "1",
		"auto.create.topics.enable":      "false",

		"offsets.topic.num.partitions":                 "1",
		"offsets.topic.replication.factor":             "1",
		"transaction.state.log.num.partitions":         "1",
		"transaction.state.log.replication.factor":     "1",
		"transaction.state.log.min.isr":                "1",
		"share.coordinator.state.topic.num.partitions": "1",

		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",

		"group.initial.rebalance.delay.ms":  "0",
		"group.coordinator.threads":         "1",
		"num.network.threads":               "2",
		"num.io.threads":                    "2",
		"num.replica.fetchers":              "1",
		"background.threads":                "2",
		"num.recovery.threads.per.data.dir": "1",
		"log.cleaner.threads":               "1",
		"log.cleaner.dedupe.buffer.size":    "4194304",
		"log.retention.hours":               "-1",
		"log.retention.check.interval.ms":   "3600000",
		// A killed broker may come back only when its session is over.
		"broker.session.timeout.ms":    "2000",
		"broker.heartbeat.interval.ms": "300",
	}
}

func writeProperties(path string, settings map[string]string, data string) error {
	lines := []string{"log.dirs=" + data}
	for name, value := range settings {
		lines = append(lines, name+"="+strings.ReplaceAll(value, `\`, `\\`))
	}
	slices.Sort(lines)
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

func (k *Kafka) ready(ctx context.Context) bool { return len(serving(ctx, k.Brokers[0])) > 0 }

// serving asks a broker for the cluster's metadata, and gives the ids of the
// brokers in it. An open port is not enough, nor is an answer without the
// broker itself: the controller lets it serve a little later.
func serving(ctx context.Context, broker string) (ids []int32) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !listening(ctx, broker) {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RequestRetries(0))
	if err != nil {
		return nil
	}
	defer client.Close()
	answer, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return nil
	}
	for _, b := range answer.Brokers {
		ids = append(ids, b.NodeID)
	}
	return ids
}

// Stop shuts the broker down cleanly; at the end of ctx it is killed.
func (k *Kafka) Stop(ctx context.Context) error {
	if err := k.stop(ctx, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop Apache Kafka: %w", err)
	}
	return nil
}
