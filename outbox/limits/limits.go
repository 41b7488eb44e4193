// Package limits learns from Kafka how large an event of each topic may be, so
// that the outbox refuses a larger one when it is written: later, the broker
// would refuse it, and with it stop all that is behind.
//
//	bytes, err := limits.Fetch(ctx, client, "user.created", "user.updated")
//	…
//	writer := outbox.Writer{TopicMaxBytes: bytes}
//
// A topic's limit can be changed at any time: fetch it at every start, and
// raise topics before the writers, lower them after.
package limits

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Overhead is what a record may take of a topic's max.message.bytes beside
// what the Writer counts of its event (payload, names, headers): the batch's
// and the record's framing, the aggregate's id a second time as the key, and
// the headers that the relay adds. It covers a source name of 255 bytes and 64
// headers of the event's own; an event with more should stay as much below.
const Overhead = 2048

// config is the topic's setting that bounds a batch.
const config = "max.message.bytes"

// Fetch gives for each topic the largest event it takes, as
// outbox.Writer.TopicMaxBytes wants it: max.message.bytes less [Overhead]. The
// limit is the topic's in effect, be it its own or the broker's. Kafka applies
// it to compressed batches; whether a payload compresses is not known when it
// is written, so it is not counted on.
//
// It asks once, and needs the right DescribeConfigs on the topics. The error
// tells of every topic that is missing, may not be described or takes no event
// at all; there are no limits then. A topic made a moment ago may still be
// missing where it asks. Where topics are made by the relay, at the
// first event, make them before, or leave them out: the Writer's MaxBytes then
// holds for them.
func Fetch(ctx context.Context, client *kgo.Client, topics ...string) (map[string]int, error) {
	if len(topics) == 0 {
		return map[string]int{}, nil
	}
	request := kmsg.NewPtrDescribeConfigsRequest()
	asked := slices.Compact(slices.Sorted(slices.Values(topics)))
	for _, topic := range asked {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName, resource.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, []string{config}
		request.Resources = append(request.Resources, resource)
	}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for the limits of %d topics: %w", len(asked), err)
	}
	return read(response, asked)
}

func read(response *kmsg.DescribeConfigsResponse, asked []string) (map[string]int, error) {
	found := make(map[string]int, len(asked))
	var errs []error
	for i := range response.Resources {
		r := &response.Resources[i]
		n, err := limit(r)
		if err != nil {
			errs = append(errs, fmt.Errorf("limit of topic %s: %w", r.ResourceName, err))
		}
		found[r.ResourceName] = n
	}
	for _, topic := range asked {
		if _, ok := found[topic]; !ok {
			errs = append(errs, fmt.Errorf("limit of topic %s: Kafka did not answer", topic))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return found, nil
}

// limit gives the largest event of one topic.
func limit(r *kmsg.DescribeConfigsResponseResource) (int, error) {
	switch err := kerr.ErrorForCode(r.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return 0, fmt.Errorf("%w; make it: kafka-topics.sh --create --topic %s; or leave it out", err, r.ResourceName)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return 0, fmt.Errorf("%w; allow it: kafka-acls.sh --add --operation DescribeConfigs --topic %s --allow-principal User:…", err, r.ResourceName)
	case err != nil:
		return 0, err
	}
	for _, entry := range r.Configs {
		if entry.Name != config || entry.Value == nil {
			continue
		}
		n, err := strconv.Atoi(*entry.Value)
		if err != nil {
			return 0, fmt.Errorf("%s %q is no number", config, *entry.Value)
		}
		if n <= Overhead {
			return 0, fmt.Errorf("%s %d leaves nothing for an event; raise it above %d: kafka-configs.sh --alter --topic %s --add-config %s=…", config, n, Overhead, r.ResourceName, config)
		}
		return n - Overhead, nil
	}
	return 0, fmt.Errorf("the answer lacks %s", config)
}
