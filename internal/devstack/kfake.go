package devstack

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KfakeOptions describe an in-process Kafka.
type KfakeOptions struct {
	// Dir keeps the data: topics, records, group offsets. Defaults to memory.
	Dir string

	// Port to listen on. Defaults to a free one.
	Port int

	// Settings are broker properties, by name, of those that kfake knows.
	Settings map[string]string
}

// Kfake is a fake that speaks the real protocol, for the demo and for quick
// tests. What a promise rests on is tested with [StartKafka]. It goes with
// this process; with a Dir, killed or not, what it acknowledged is found again.
type Kfake struct {
	// Brokers are the addresses to give to a client.
	Brokers []string

	cluster *kfake.Cluster
	home    *home
}

// StartKfake starts one broker in this process. It serves at once.
func StartKfake(o KfakeOptions) (*Kfake, error) {
	options := []kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(1), kfake.BrokerConfigs(o.Settings)}
	if o.Port != 0 {
		options = append(options, kfake.Ports(o.Port))
	}
	k := new(Kfake)
	if o.Dir != "" {
		h, err := openHome(o.Dir)
		if err != nil {
			return nil, startError("kfake", o.Dir, "", err)
		}
		k.home = h
		options = append(options, kfake.DataDir(h.path("data")))
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		k.release()
		return nil, startError("kfake", o.Dir, "", fmt.Errorf("make the cluster: %w", err))
	}
	k.cluster, k.Brokers = cluster, cluster.ListenAddrs()
	return k, nil
}

// Stop writes what is left to write and closes every connection.
func (k *Kfake) Stop() {
	k.cluster.Close()
	k.release()
}

func (k *Kfake) release() {
	if k.home != nil {
		k.home.release()
		k.home = nil
	}
}
