package devstack

import (
	"context"
	_ "embed"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// kafkaVersion is the version that kafka_pom.xml pins.
const kafkaVersion = "4.3.1"

//go:embed kafka_pom.xml
var kafkaPOM []byte

//go:embed kafka_log4j2.properties
var kafkaLog4j []byte

// A kafkaHome is an installed Apache Kafka.
type kafkaHome struct {
	java   string
	dir    string
	shared []string // options for the class archive
}

// findKafka gives the Apache Kafka in the cache, fetching it on first use.
func findKafka(ctx context.Context, progress io.Writer) (kafkaHome, error) {
	java, err := findJava()
	if err != nil {
		return kafkaHome{}, err
	}
	dir, err := download{
		name: "kafka-" + kafkaVersion, title: "Apache Kafka " + kafkaVersion, size: "about 44 MB", fetch: fetchKafka,
	}.get(ctx, progress)
	if err != nil {
		return kafkaHome{}, err
	}
	k := kafkaHome{java: java, dir: dir}
	k.shared = k.archive(ctx, progress)
	return k, nil
}

func findJava() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		if java := filepath.Join(home, "bin", "java"); exists(java) {
			return java, nil
		}
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return "", &MissingError{
			Programs: "java (17 or newer)", For: "Apache Kafka " + kafkaVersion,
			Install: "apt-get install default-jre-headless maven",
		}
	}
	return java, nil
}

func fetchKafka(ctx context.Context, dir string) error {
	if !has("mvn") {
		return &MissingError{Programs: "mvn", For: "Apache Kafka " + kafkaVersion, Install: "apt-get install maven"}
	}
	pom := filepath.Join(dir, "pom.xml")
	err := errors.Join(
		os.WriteFile(pom, kafkaPOM, 0o644),
		os.WriteFile(filepath.Join(dir, "log4j2.properties"), kafkaLog4j, 0o644),
	)
	if err != nil {
		return err
	}
	return runClient(ctx, dir, "mvn", dependencyPlugin+"copy-dependencies", "-B", "-q", "-f", pom,
		"-DoutputDirectory="+filepath.Join(dir, "lib"))
}

// arguments are those of a Java program of Kafka's with a small heap.
func (k kafkaHome) arguments(options []string, class string, args ...string) []string {
	all := slices.Concat([]string{"-XX:+UseSerialGC", "-Djava.awt.headless=true"}, options)
	all = append(all, "-Dlog4j2.configurationFile="+filepath.Join(k.dir, "log4j2.properties"),
		"-cp", filepath.Join(k.dir, "lib")+"/*", class)
	return append(all, args...)
}
