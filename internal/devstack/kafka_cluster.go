package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// clusterSize is how many brokers a [KafkaCluster] has: the least of which one
// may fail without anybody's noticing.
const clusterSize = 3

// KafkaClusterOptions describe a private Apache Kafka of three brokers.
type KafkaClusterOptions struct {
	// Dir keeps the data and the logs, each broker's in a folder 0, 1 or 2. It
	// must be set.
	Dir string

	// Settings are properties of all brokers, by name; they win over ours.
	Settings map[string]string

	// Progress gets a line for what takes long. Defaults to nobody.
	Progress io.Writer
}

// A KafkaCluster is a running private Apache Kafka of three KRaft nodes, each
// broker and controller in one process. Topics get three replicas unless told
// otherwise, of which two must have a record. Two nodes are needed for anything
// to be decided: with one, leaders and in-sync replicas stay as they were. It
// is for one goroutine.
type KafkaCluster struct {
	// Brokers are the addresses to give to a client, in the nodes' order.
	Brokers []string

	id    string
	found kafkaHome
	nodes [clusterSize]clusterNode
}

// A clusterNode is a node's part of the cluster, running or not.
type clusterNode struct {
	dir      string
	settings map[string]string
	running  *Kafka // the last one
}

// nodeID is what Kafka calls broker i.
func nodeID(i int) int { return i + 1 }

// StartKafkaCluster starts the brokers in o.Dir, formatting their storage on
// first use.
func StartKafkaCluster(ctx context.Context, o KafkaClusterOptions) (*KafkaCluster, error) {
	c := &KafkaCluster{id: clusterID()}
	err := c.start(ctx, o)
	if err == nil {
		return c, nil
	}
	for _, n := range c.nodes {
		if n.running != nil {
			err = errors.Join(err, n.running.Kill())
		}
	}
	return nil, startError("a cluster of Apache Kafka", o.Dir, "", err)
}

func (c *KafkaCluster) start(ctx context.Context, o KafkaClusterOptions) error {
	if o.Dir == "" {
		return errors.New("dir: must be set")
	}
	var err error
	if c.found, err = findKafka(ctx, o.Progress); err != nil {
		return err
	}
	if err := c.configure(ctx, o); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range c.nodes {
		g.Go(func() error { return c.launch(ctx, i, clusterSize) })
	}
	return g.Wait()
}

// configure gives every node its ports, which stay the same in restarts since
// the others know them.
func (c *KafkaCluster) configure(ctx context.Context, o KafkaClusterOptions) error {
	var voters []string
	for i := range c.nodes {
		port, err1 := freePort(ctx)
		controller, err2 := freePort(ctx)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		settings := kafkaSettings(port, controller)
		for name := range settings {
			switch {
			case strings.HasSuffix(name, "replication.factor"):
				settings[name] = strconv.Itoa(clusterSize)
			case strings.HasSuffix(name, "min.isr"):
				settings[name] = "2"
			}
		}
		settings["node.id"] = strconv.Itoa(nodeID(i))
		settings["default.replication.factor"], settings["min.insync.replicas"] = strconv.Itoa(clusterSize), "2"
		voters = append(voters, settings["node.id"]+"@"+loopback(controller))
		c.nodes[i] = clusterNode{dir: filepath.Join(o.Dir, strconv.Itoa(i)), settings: settings}
		c.Brokers = append(c.Brokers, loopback(port))
	}
	for _, n := range c.nodes {
		n.settings["controller.quorum.voters"] = strings.Join(voters, ",")
		maps.Copy(n.settings, o.Settings)
	}
	return nil
}

// launch starts node i, and returns when it and so many brokers in all serve.
func (c *KafkaCluster) launch(ctx context.Context, i, brokers int) error {
	h, err := openHome(c.nodes[i].dir)
	if err != nil {
		return err
	}
	n := &node{home: h, kafkaHome: c.found, data: h.path("data"), log: h.path("log/kafka.log")}
	p, err := n.launch(ctx, c.nodes[i].settings, c.id, nil)
	if err != nil {
		h.release()
		return startError("Apache Kafka", h.dir, n.log, err)
	}
	c.nodes[i].running = &Kafka{process: p, Brokers: c.Brokers[i : i+1]}
	err = p.await(ctx, func(ctx context.Context) bool {
		ids := serving(ctx, c.Brokers[i])
		return len(ids) >= brokers && slices.Contains(ids, int32(nodeID(i)))
	})
	return startError("Apache Kafka", h.dir, n.log, err)
}

// Broker gives broker i, from 0, to be killed, stopped or paused.
func (c *KafkaCluster) Broker(i int) *Kafka { return c.nodes[i].running }

// Restart starts broker i again, which must have ended, with its data and at
// its address. It returns when the broker serves, which it does only while
// another one runs.
func (c *KafkaCluster) Restart(ctx context.Context, i int) error {
	select {
	case <-c.Broker(i).Done():
		return c.launch(ctx, i, 1)
	default:
		return fmt.Errorf("restart broker %d of %d: it still runs", i, clusterSize)
	}
}

// stopTogether is how long brokers that all stop have to do it cleanly: the
// last ones find no controller any more to hand their partitions to.
const stopTogether = 3 * time.Second

// Stop stops all brokers, paused ones too; at the end of ctx or after three
// seconds they are killed.
func (c *KafkaCluster) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopTogether)
	defer cancel()
	var g errgroup.Group
	for _, n := range c.nodes {
		g.Go(func() error { return n.running.Stop(ctx) })
	}
	return g.Wait()
}
